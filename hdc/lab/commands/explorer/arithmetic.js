"use strict";
// What a schedule sees, as hdc/schedules.py, fields.py, ripple.py, orders.py and search.py compute it.
// tests/test_explore.py compares the two in a browser. `known` holds the constants, written by Python.

const arithmetic = (known) => {
  const sum = (values) => values.reduce((total, value) => total + value, 0);
  const largest = (values) => values.reduce((most, value) => Math.max(most, value), -Infinity);
  const gcd = (a, b) => (b ? gcd(b, a % b) : a);
  const ascending = (values) => [...values].sort((a, b) => a - b);
  const memo = (compute) => {
    const kept = new Map();
    return (...key) => {
      const name = key.join();
      if (!kept.has(name)) {
        if (kept.size > 2000) kept.clear();
        kept.set(name, compute(...key));
      }
      return kept.get(name);
    };
  };

  // ---- reading rates ----

  const split = (text) => {
    let depth = 0;
    const parts = [""];
    for (const letter of text) {
      depth += { "[": 1, "]": -1 }[letter] ?? 0;
      if (letter === "," && depth === 0) parts.push("");
      else parts[parts.length - 1] += letter;
    }
    return parts;
  };

  /** The rates of each layer's branches: one for a plain layer. Throws an Error with a line for the user. */
  const parse = (typed) => {
    const whole = typed.trim();
    const text = whole.replaceAll("(", "[").replaceAll("|", ",").replaceAll(")", "]");
    const label = text.includes("-") && /^(\d{1,9}(?:-\d{1,9})*)(?:x(\d{1,9}))?$/.exec(text);
    let parts;
    if (label) {
      const times = Number(label[2] ?? 1);
      const rates = label[1].split("-");
      if (times < 1) throw Error("the number after x must be at least 1");
      if (times * rates.length > known.max_layers) {
        throw Error(`${times * rates.length} layers: at most ${known.max_layers} are allowed`);
      }
      parts = Array.from({ length: times }, () => rates).flat();
    } else {
      parts = split(text);
      if (parts.length === 1 && whole.startsWith("[") && whole.endsWith("]")) parts = split(text.slice(1, -1));
    }
    if (parts.length > known.max_layers) {
      throw Error(`${parts.length} layers: at most ${known.max_layers} are allowed`);
    }
    return parts.map((layer, place) => {
      const part = layer.trim();
      const branches = part.startsWith("[") && part.endsWith("]");
      return (branches ? part.slice(1, -1).split(",") : [part]).map((one) => {
        const number = one.trim();
        const where = `at position ${place + 1}`;
        if (number === "") throw Error(`position ${place + 1} is empty: write rates such as 1,2,5`);
        if (/^\d+x\d+$/.test(number)) {
          throw Error(`“${number}” ${where}: this page has the same rates on both axes; hdc check takes ${number}`);
        }
        if (!/^\d+$/.test(number)) {
          throw Error(`“${number.slice(0, 20)}” ${where} is not a rate: write 1,2,5, or 1,[0,6,12] for branches`);
        }
        const rate = Number(number);
        if (rate > known.max_rate || rate < (branches ? 0 : 1)) {
          throw Error(`rate ${number.slice(0, 12)} ${where} must be from ${branches ? 0 : 1} to ${known.max_rate}`);
        }
        return rate;
      });
    });
  };

  const isStack = (layers) => layers.every((layer) => layer.length === 1 && layer[0] > 0);

  // ---- path counts ----

  /** Adds a shifted copy of the counts for each tap. */
  const widen = (counts, rate, taps, wider) => {
    for (let tap = 0; tap < taps; tap++) {
      const start = tap * rate;
      for (let at = 0; at < counts.length; at++) wider[start + at] += counts[at];
    }
    return wider;
  };

  const widened = (counts, rate, taps) =>
    widen(counts, rate, taps, new Float64Array(counts.length + (taps - 1) * rate));

  /** Counts of stacks along one axis as integers of any size; null if that takes long. */
  const integers = (rates, taps) => {
    if (rates.length * taps * (1 + (taps - 1) * sum(rates)) > known.integers) return null;
    return rates.reduce(
      (counts, rate) =>
        widen(counts, rate, taps, new Array(counts.length + (taps - 1) * rate).fill(0n)),
      [1n],
    );
  };

  /** `[height * width]` counts of layers of parallel branches; a signal has height 1. */
  const branchedMap = (layers, taps, axes) => {
    let map = Float64Array.of(1);
    let side = 1;
    for (const rates of layers) {
      const reach = (taps - 1) * largest(rates);
      const before = Math.floor(reach / 2);
      const wide = side + reach;
      const total = new Float64Array(axes === 2 ? wide * wide : wide);
      for (const rate of rates) {
        const low = before - Math.floor(((taps - 1) * rate) / 2);
        const steps = rate ? taps : 1;
        for (let y = 0; y < (axes === 2 ? side : 1); y++) {
          for (let x = 0; x < side; x++) {
            const value = map[y * side + x];
            if (value === 0) continue;
            for (let row = 0; row < (axes === 2 ? steps : 1); row++) {
              const start = (axes === 2 ? low + y + row * rate : 0) * wide + low + x;
              for (let column = 0; column < steps; column++) total[start + column * rate] += value;
            }
          }
        }
      }
      map = total;
      side = wide;
    }
    return cropped(map, side, axes);
  };

  /** Without empty edges, which an even kernel leaves where branches do not share a centre. */
  const cropped = (map, side, axes) => {
    const rows = axes === 2 ? side : 1;
    let first = side;
    let last = -1;
    for (let y = 0; y < rows; y++) {
      for (let x = 0; x < side; x++) {
        if (map[y * side + x] > 0) {
          first = Math.min(first, x);
          last = Math.max(last, x);
        }
      }
    }
    const length = last - first + 1;
    if (length === side) return { map, side };
    const top = axes === 2 ? first : 0; // the axes are alike
    const inside = new Float64Array(axes === 2 ? length * length : length);
    for (let y = 0; y < (axes === 2 ? length : 1); y++) {
      for (let x = 0; x < length; x++) inside[y * length + x] = map[(y + top) * side + x + first];
    }
    return { map: inside, side: length };
  };

  // ---- certificate, rule, gridding ----

  /** Each rate in ascending order beside what the smaller ones fill; up to the first that steps over more. */
  const certificate = (rates, taps) => {
    const steps = [];
    let fills = 1;
    for (const layer of [...rates.keys()].sort((a, b) => rates[a] - rates[b] || a - b)) {
      const rate = rates[layer];
      steps.push({ layer: layer + 1, rate, fills });
      if (rate > fills) return { steps, hole: fills };
      fills += (taps - 1) * rate;
    }
    return { steps, hole: null };
  };

  const rule = (rates, taps, gapFree) => {
    let most = rates[rates.length - 1];
    for (let layer = rates.length - 2; layer > 0; layer--) {
      most = Math.max(most - 2 * rates[layer], 2 * rates[layer] - most, rates[layer]);
    }
    const m2 = rates.length > 1 ? most : null;
    const accepts = rates.reduce(gcd) === 1 && (m2 === null || m2 <= taps);
    return { m2, accepts, agrees: accepts === gapFree };
  };

  const coprime = memo((period) => {
    const found = [];
    for (let m = 1; m <= period / 2; m++) if (gcd(m, period) === 1) found.push(m);
    return found;
  });

  /** The response of a layer at the frequency bin / bins; 1 at frequency 0. */
  const response = (taps, rate, bin, bins) => {
    const step = (rate * bin) % bins;
    if (step === 0) return 1;
    return Math.abs(Math.sin((Math.PI * ((taps * step) % bins)) / bins)) / (taps * Math.sin((Math.PI * step) / bins));
  };

  /** The first of the largest values, up to rounding. */
  const firstLargest = (values) => values.findIndex((value) => value >= (1 - 1e-9) * largest(values));

  const gridding = (rates, taps) => {
    let best = { index: 0, numerator: null, period: null };
    const times = new Map();
    for (const rate of ascending(rates)) times.set(rate, (times.get(rate) ?? 0) + 1);
    for (let period = 2; period <= largest(rates); period++) {
      const numerators = [];
      const products = [];
      for (const m of coprime(period)) {
        let product = 1;
        for (const [rate, often] of times) {
          product *= response(taps, rate, m, period) ** often;
          if (product <= best.index + 1e-12) break;
        }
        if (product > best.index + 1e-12) {
          numerators.push(m);
          products.push(product);
        }
      }
      if (products.length) {
        const peak = firstLargest(products);
        best = { index: products[peak], numerator: numerators[peak], period };
      }
    }
    return best;
  };

  const griddingOf = (line, longest) => {
    let best = { index: 0, numerator: null, period: null };
    for (let period = 2; period <= longest; period++) {
      const folded = new Float64Array(period);
      line.forEach((value, at) => (folded[at % period] += value));
      const all = sum(folded);
      const numerators = coprime(period);
      const found = numerators.map((m) => {
        let re = 0;
        let im = 0;
        folded.forEach((value, at) => {
          const angle = (2 * Math.PI * ((m * at) % period)) / period;
          re += value * Math.cos(angle);
          im += value * Math.sin(angle);
        });
        return Math.hypot(re, im) / all;
      });
      const peak = firstLargest(found);
      if (found[peak] > best.index + 1e-12) {
        best = { index: Math.min(found[peak], 1), numerator: numerators[peak], period };
      }
    }
    return best;
  };

  const lattice = (rates) => {
    let best = { share: 0, period: null };
    for (let period = 2; period <= largest(rates); period++) {
      const share = rates.filter((rate) => rate % period === 0).length / rates.length;
      if (best.period === null || share > best.share) best = { share, period };
    }
    return best;
  };

  // ---- predicted ripple ----

  const longestPeriod = (rate) => Math.max(known.shortest, rate);

  /** The teeth m / period of all periods up to the longest. */
  const teeth = memo((longest) => {
    const found = [];
    for (let period = 2; period <= longest; period++) {
      for (const m of coprime(period)) found.push({ m, period });
    }
    return found;
  });

  /** At each tooth and in the valleys below and above it, `[3 teeth]`, the share of power a layer passes. */
  const passed = memo((taps, rate, longest) =>
    Float64Array.from(
      teeth(longest).flatMap(({ m, period }) =>
        [0, -1, 1].map((side) => response(taps, rate, 2 * m + side, 2 * period) ** 2),
      ),
    ),
  );

  /** The power of the expected mean |dy/dx|, whatever the order of the layers, at the same frequencies. */
  const unordered = (paths, longest) => {
    const field = paths.length;
    const side = Math.max(known.map, 4 * longest, field);
    let white = 0;
    const middle = Float64Array.from(paths, (share, at) => {
      const window = 0.5 + 0.5 * Math.cos((2 * Math.PI * (at - (field - 1) / 2)) / side);
      white += share * window ** 2;
      return Math.sqrt(share) * window;
    });
    white *= (Math.PI / 2 - 1) / known.images / known.numbers;
    const powers = [];
    for (let period = 2; period <= longest; period++) {
      // The paths are symmetric, so that cosines of the distance from the centre, in half pixels, will do.
      const bins = 2 * period;
      const cosine = Float64Array.from({ length: 2 * bins }, (_, turn) => Math.cos((Math.PI * turn) / bins));
      const folded = new Float64Array(bins + 1);
      for (let at = 0; at < field; at++) {
        const distance = Math.abs(2 * at - (field - 1)) % (2 * bins);
        folded[Math.min(distance, 2 * bins - distance)] += middle[at];
      }
      const kept = new Float64Array(bins + 1).fill(-1);
      const at = (bin) => {
        if (kept[bin] >= 0) return kept[bin];
        const first = (field - 1) % 2;
        let [total, turn] = [0, bin * first];
        for (let distance = first; distance <= bins; distance += 2) {
          total += folded[distance] * cosine[turn];
          turn += 2 * bin;
          if (turn >= 2 * bins) turn -= 2 * bins;
        }
        kept[bin] = total * total;
        return kept[bin];
      };
      for (const m of coprime(period)) powers.push(at(2 * m), at(2 * m - 1), at(2 * m + 1));
    }
    return Float64Array.from(powers, (power) => power + white);
  };

  const chance = (squares, share) => squares / (2 * share - share ** 2) / 2 / known.numbers;
  const squares = (values) => values.reduce((total, value) => total + value * value, 0);
  const variance = (taps, rate) => (rate ** 2 * (taps ** 2 - 1)) / 12;
  const smoothed = (paths, taps, rate) => widened(paths, rate, taps).map((value) => value / taps);
  const decibels = (quotient) => 10 * Math.log10(quotient);

  /** The largest power at a tooth over that in the valleys beside it. */
  const contrast = (power) => {
    let most = 0;
    for (let at = 0; at < power.length; at += 3) {
      most = Math.max(most, (2 * power[at]) / (power[at + 1] + power[at + 2]));
    }
    return most;
  };

  /** The ripple to be expected of layers `[taps, rate]`, the stem included. */
  const ripple = memo((...layers) => {
    const longest = longestPeriod(largest(layers.map(([, rate]) => rate)));
    const total = sum(layers.map(([taps, rate]) => variance(taps, rate)));
    let before = total;
    let after = Float64Array.of(1);
    const smoothing = new Float64Array(3 * teeth(longest).length).fill(1);
    const power = smoothing.map(() => 0);
    for (const [taps, rate] of layers.slice(1).reverse()) {
      after = smoothed(after, taps, rate);
      before -= variance(taps, rate);
      const passes = passed(taps, rate, longest);
      const strength = before > 1e-9 * total ? chance(squares(after), before / total) : 0;
      for (let at = 0; at < power.length; at++) {
        smoothing[at] *= passes[at];
        power[at] += strength * smoothing[at];
      }
    }
    unordered(smoothed(after, ...layers[0]), longest).forEach((value, at) => (power[at] += value));
    let best = null;
    teeth(longest).forEach(({ m, period }, at) => {
      const db = decibels(contrast(power.subarray(3 * at, 3 * at + 3)));
      if (best === null || Math.round(db * 1e9) > Math.round(best.db * 1e9)) best = { db, m, period };
    });
    return best;
  });

  const withStem = (rates, taps, stem) => [
    ...(stem ? [[known.stem, 1]] : []),
    ...rates.map((rate) => [taps, rate]),
  ];

  const predicted = (layers, taps, axes, stem) => {
    const rates = layers.flat();
    if (!isStack(layers) || largest(rates) > known.max_ripple_rate) return null;
    const [[size, rate], ...rest] = withStem(rates, taps, stem);
    const tried =
      axes === 2 && size === known.stem && rate === 1 && [3, 5].includes(taps) && rest.length >= 3 && rest.length <= 8 &&
      largest(rest.map((layer) => layer[1])) <= 16;
    return { ...ripple(...withStem(rates, taps, stem)), tried };
  };

  // ---- orders ----

  /** How many different orders these rates have; not exact above 2^53. */
  const numberOfOrders = (rates) => {
    const times = new Map();
    return rates.reduce((product, rate, at) => {
      times.set(rate, (times.get(rate) ?? 0) + 1);
      return (product * (at + 1)) / times.get(rate);
    }, 1);
  };

  /** What the orders of a set of rates share: an order is a path through multisets, the last layer first. */
  const setOfRates = (rates, taps, stem) => {
    const different = [...new Set(ascending(rates))];
    const times = different.map((rate) => rates.filter((one) => one === rate).length);
    const longest = longestPeriod(largest(rates));
    const frequencies = 3 * teeth(longest).length;
    const steps = [];
    let multisets = 1;
    for (let axis = times.length - 1; axis >= 0; axis--) {
      steps[axis] = multisets;
      multisets *= times[axis] + 1;
    }
    const digit = (set, axis) => Math.floor(set / steps[axis]) % (times[axis] + 1);
    const base = stem ? variance(known.stem, 1) : 0;
    const total = base + sum(rates.map((rate) => variance(taps, rate)));
    const paths = [Float64Array.of(1)];
    const smoothing = [new Float64Array(frequencies).fill(1)];
    const spent = [0];
    const adds = [null];
    for (let set = 1; set < multisets; set++) {
      const axis = different.findIndex((_, one) => digit(set, one) > 0);
      const smaller = set - steps[axis];
      paths[set] = smoothed(paths[smaller], taps, different[axis]);
      spent[set] = spent[smaller] + variance(taps, different[axis]);
      const passes = passed(taps, different[axis], longest);
      smoothing[set] = smoothing[smaller].map((value, at) => value * passes[at]);
      const before = total - spent[set];
      const strength = before > 1e-9 * total ? chance(squares(paths[set]), before / total) : 0;
      adds[set] = smoothing[set].map((value) => value * strength);
    }
    const whole = paths[multisets - 1];
    const start = unordered(stem ? smoothed(whole, known.stem, 1) : whole, longest);
    return { different, times, steps, multisets, digit, adds, start };
  };

  const plus = (power, more, result = new Float64Array(power.length)) => {
    for (let at = 0; at < power.length; at++) result[at] = power[at] + more[at];
    return result;
  };

  /** Every order of the rates with its predicted ripple, the least first; null if there are too many. */
  const orders = (rates, taps, stem) => {
    const number = numberOfOrders(rates);
    const work = number * teeth(longestPeriod(largest(rates))).length;
    if (number > known.orders || work > known.order_work) return null;
    const set = setOfRates(rates, taps, stem);
    const found = [];
    const kept = rates.map(() => set.start.slice()); // the power so far, by the number of layers to come
    const visit = (after, power, path) => {
      if (after === set.multisets - 1) {
        found.push({ rates: path, db: decibels(contrast(power)) });
        return;
      }
      const free = kept[rates.length - path.length - 1];
      set.different.forEach((rate, axis) => {
        if (set.digit(after, axis) === set.times[axis]) return;
        const next = after + set.steps[axis];
        visit(next, plus(power, set.adds[next], free), [rate, ...path]);
      });
    };
    visit(0, set.start, []);
    return found.sort((a, b) => a.db - b.db);
  };

  /** The best order of the layers: in no order is the ripple less by 0.1 dB. Null if that takes long. */
  const bestOrder = (rates, taps, stem) => {
    const set = setOfRates(rates, taps, stem);
    const full = set.multisets - 1;
    // What the layers to come add at least at teeth, and at most in valleys: no order has less ripple.
    const toGo = [];
    toGo[full] = set.start.map(() => 0);
    for (let after = full - 1; after >= 0; after--) {
      const bound = set.start.map((_, at) => (at % 3 ? -Infinity : Infinity));
      set.different.forEach((_, axis) => {
        if (set.digit(after, axis) === set.times[axis]) return;
        const next = after + set.steps[axis];
        for (let at = 0; at < bound.length; at++) {
          const value = set.adds[next][at] + toGo[next][at];
          bound[at] = at % 3 ? Math.max(bound[at], value) : Math.min(bound[at], value);
        }
      });
      toGo[after] = bound;
    }
    const along = (path) => {
      let after = 0;
      return path.reduceRight((power, rate) => {
        after += set.steps[set.different.indexOf(rate)];
        return plus(power, set.adds[after]);
      }, set.start);
    };
    let best = ascending(rates).reverse(); // if no other is clearly better
    let least = contrast(along(best));
    let visits = 0;
    const visit = (after, power, path) => {
      const ways = [];
      set.different.forEach((rate, axis) => {
        if (set.digit(after, axis) === set.times[axis]) return;
        const next = after + set.steps[axis];
        const there = plus(power, set.adds[next]);
        ways.push({ next, there, path: [rate, ...path], bound: Math.max(1, contrast(plus(there, toGo[next]))) });
      });
      visits += ways.length;
      ways.sort((a, b) => a.bound - b.bound);
      for (const way of ways) {
        if (visits > known.visits) return;
        if (way.bound >= Math.max(1, least) * 10 ** -0.01) return;
        if (way.next === full) {
          best = way.path;
          least = way.bound;
        } else visit(way.next, way.there, way.path);
      }
    };
    visit(0, set.start, []);
    return visits > known.visits ? null : { rates: best, db: decibels(contrast(along(best))) };
  };

  // ---- better schedules ----

  /** What the best order of a set of ascending rates costs: all multisets of them, at all teeth. */
  const orderWork = (set) => {
    let [multisets, times] = [1, 0];
    set.forEach((rate, at) => {
      times = rate === set[at - 1] ? times + 1 : 1;
      multisets *= (times + 1) / times;
    });
    return multisets * teeth(longestPeriod(largest(set))).length;
  };

  /** The gap-free sets of so many rates with that sum, ascending; null if there are too many. */
  const gapFreeSets = (layers, total, taps) => {
    const found = [];
    let steps = 0;
    const extend = (prefix, before) => {
      const left = layers - prefix.length;
      const fills = 1 + (taps - 1) * before;
      if (left === 1) {
        const last = total - before;
        if (last >= (prefix[prefix.length - 1] ?? 1) && last <= fills) found.push([...prefix, last]);
        return;
      }
      if (fills * taps ** left < 1 + (taps - 1) * total) return; // the field stays too small
      const high = Math.min(fills, Math.floor((total - before) / left));
      for (let rate = prefix[prefix.length - 1] ?? 1; rate <= high; rate++) {
        if (found.length > known.sets || ++steps > 200 * known.sets) return;
        extend([...prefix, rate], before + rate);
      }
    };
    extend([], 0);
    return found.length > known.sets || steps > 200 * known.sets ? null : found;
  };

  /**
   * The best gap-free schedules of the same field, ranked as `hdc search` ranks them. A generator that yields
   * between sets, so that the page stays alive; it returns `{layers, sets, found}`, or found: null with `why`.
   */
  function* better(rates, taps, stem, top) {
    const total = sum(rates);
    const field = 1 + (taps - 1) * total;
    let layers = rates.length;
    while (taps ** layers < field) layers++;
    const command = `hdc search --layers ${layers} --field ${field}` +
      (taps === 3 ? "" : ` --kernel-size ${taps}`) + (stem ? "" : " --no-stem");
    const refused = { layers, field, command, found: null };
    const tooLong = { ...refused, why: "It would take too long in a browser" };
    const sets = gapFreeSets(layers, total, taps);
    if (sets === null) return { ...refused, why: `There are more than ${known.sets} sets of rates` };
    if (sum(sets.map((set) => orderWork(set))) > known.search_work) return tooLong;
    const found = [];
    for (const set of sets) {
      const order = bestOrder(set, taps, stem);
      if (order === null) return tooLong;
      found.push({ ...order, set, squares: squares(set) });
      yield found.length / sets.length;
    }
    const least = Math.min(...found.map(({ db }) => Math.max(db, 0)));
    const step = ({ db }) => Math.floor((Math.max(db, 0) - least) / known.spread);
    found.sort(
      (a, b) => step(a) - step(b) || b.squares - a.squares || a.set.reduce((by, rate, at) => by || rate - b.set[at], 0),
    );
    return { layers, field, command, sets: sets.length, found: found.slice(0, top) };
  }

  // ---- all of it ----

  /** The share of a layer's taps that fall into the padding, along one axis. */
  const paddingShare = (rate, taps, size, causal) => {
    const before = (taps - 1) * rate;
    let inside = 0;
    for (let tap = 0; tap < taps; tap++) {
      const offset = rate * tap - (causal ? before : Math.floor(before / 2));
      inside += Math.max(0, size - Math.abs(offset)) / size;
    }
    return 1 - inside / taps;
  };

  const padding = (layers, taps, axes, size, causal) =>
    layers.map((rates) => {
      const weights = rates.map((rate) => (rate ? taps ** axes : 1));
      const shares = rates.map((rate) => (rate ? 1 - (1 - paddingShare(rate, taps, size, causal)) ** axes : 0));
      return sum(shares.map((share, at) => share * weights[at])) / sum(weights);
    });

  /** Throws an Error with a line for the user. */
  const check = (layers, taps, axes) => {
    if (!Number.isInteger(taps) || taps < 2 || taps > known.max_taps) {
      throw Error(`the kernel size must be from 2 to ${known.max_taps}`);
    }
    const side = 1 + (taps - 1) * sum(layers.map(largest));
    if (side > known.max_field) throw Error(`the field has ${side} px: at most ${known.max_field} are allowed`);
    if (!isStack(layers) && axes === 2 && side > known.max_branched) {
      throw Error(`the field of the branches is ${side} px wide: this page shows ${known.max_branched}, hdc check more`);
    }
    if (layers.length * Math.log10(Math.max(...layers.map((layer) => layer.length)) * taps ** axes) > 300) {
      throw Error("more than 10^300 paths: too many for this page, hdc check counts them");
    }
  };

  /** Everything that is shown of a schedule; ripple, orders and better schedules are computed apart. */
  const field = (layers, taps, axes) => {
    check(layers, taps, axes);
    return isStack(layers) ? stackField(layers.flat(), taps, axes) : branchedField(layers, taps, axes);
  };

  const stackField = (rates, taps, axes) => {
    const counts = rates.reduce((line, rate) => widened(line, rate, taps), Float64Array.of(1));
    const side = counts.length;
    const exact = largest(counts) < Number.MAX_SAFE_INTEGER;
    let big = null;
    const along = (at) => {
      if (exact) return BigInt(counts[at]);
      big ??= integers(rates, taps) ?? [];
      return big[at] ?? null;
    };
    const covered = counts.reduce((number, count) => number + (count > 0), 0);
    const { steps, hole } = certificate(rates, taps);
    let shared = 0;
    for (let at = 1; at < side; at++) shared += counts[at] > 0 && counts[at - 1] > 0;
    return {
      layers: rates.map((rate) => [rate]),
      stack: true,
      taps,
      axes,
      side,
      line: counts,
      value: axes === 2 ? (y, x) => counts[y] * counts[x] : (_, x) => counts[x],
      /** The exact number of paths to an offset along the axis, and to a pixel; null if it is too large. */
      along,
      count(y, x) {
        const [row, column] = [axes === 2 ? along(y) : 1n, along(x)];
        return row === null || column === null ? null : row * column;
      },
      covered,
      coverage: covered / side,
      seen: (covered / side) ** axes,
      gapFree: hole === null,
      steps,
      firstHole: hole === null ? null : [hole],
      gridding: gridding(rates, taps),
      lattice: lattice(rates),
      width: Math.sqrt(sum(rates.map((rate) => variance(taps, rate)))),
      overlap: shared / (2 * covered - shared),
      factor: rates.reduce(gcd),
      rule: rule(rates, taps, hole === null),
    };
  };

  const branchedField = (layers, taps, axes) => {
    const { map, side } = branchedMap(layers, taps, axes);
    const exact = largest(map) < Number.MAX_SAFE_INTEGER;
    const line = new Float64Array(side);
    map.forEach((count, at) => (line[at % side] += count));
    const exactLine = largest(line) < Number.MAX_SAFE_INTEGER;
    let [all, shared, hole] = [0, 0, -1];
    map.forEach((count, at) => {
      if (count > 0) {
        all++;
        shared += at % side > 0 && map[at - 1] > 0;
      } else if (hole < 0) hole = at;
    });
    const total = sum(line);
    const mean = line.reduce((moment, count, at) => moment + at * count, 0) / total;
    const second = line.reduce((moment, count, at) => moment + (at - mean) ** 2 * count, 0) / total;
    const covered = line.reduce((number, count) => number + (count > 0), 0);
    const rates = layers.flat().filter((rate) => rate > 0);
    return {
      layers,
      stack: false,
      taps,
      axes,
      side,
      line,
      value: (y, x) => map[(axes === 2 ? y * side : 0) + x],
      along: (at) => (exactLine ? BigInt(line[at]) : null),
      count: (y, x) => (exact ? BigInt(map[(axes === 2 ? y * side : 0) + x]) : null),
      covered,
      coverage: covered / side,
      seen: all / map.length,
      gapFree: hole < 0,
      steps: null,
      firstHole: hole < 0 ? null : axes === 2 ? [Math.floor(hole / side), hole % side] : [hole],
      gridding: griddingOf(line, Math.max(1, ...rates)),
      lattice: null,
      width: Math.sqrt(second),
      overlap: shared / (2 * all - shared),
      factor: rates.reduce(gcd, 0),
      rule: null,
    };
  };

  return { parse, isStack, field, predicted, orders, numberOfOrders, bestOrder, better, padding, ripple, withStem };
};
