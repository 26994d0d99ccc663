// What XLA's calls compute of an image, but for Winograd convolutions.

#include "vectors.h"

namespace hdc::kernels {

struct Taps {  // those that lie on the image
  int h0, h1, w0, w1;
};

// Where the first of these taps sees an image from one output, and where its weights are.
static inline const float* seen(const Shape& s, const float* image, const Taps& t, int oh, int ow) {
  const long row = oh * s.stride_h - s.top + t.h0 * (long)s.rate_h, column = ow * s.stride_w - s.left + t.w0 * (long)s.rate_w;
  return image + (row * s.width + column) * s.pixel;
}

static inline long first_weight(const Shape& s, const Taps& t) { return (t.h0 * s.kernel_w + t.w0) * (long)s.padded; }

struct Output {  // of a convolution, with what is done to it on the way
  const float* bias;
  bool add, relu;
  float* y;
};

// P neighbouring outputs of one row, V vectors of their channels from f on, of which `kept` floats are real. The pixels
// that one tap sees of them lie D floats apart and have C channels, which saves registers and loops where it is known,
// else (0) as the shape says.
template <int P, int V, int D, int C>
ALONE static void outputs(const Shape& s, const float* image, const float* w, Output to, Taps t, int oh, int ow, int f, int kept) {
  float* y = to.y + oh * s.out_line + ow * s.out_pixel + f;
  const long down = s.rate_h * (long)s.width * s.pixel, right = s.rate_w * s.pixel;
  const long step = D ? D : s.pixel * s.stride_w;
  const int channels = C ? C : s.channels;
  Vec acc[P][V];
  for (int p = 0; p < P; ++p)  // the outputs' lines come while the sums are taken
    for (int v = 0; v < V; ++v) __builtin_prefetch(y + p * s.out_pixel + v * LANES, 1);
  UNROLLED for (int p = 0; p < P; ++p)
    UNROLLED for (int v = 0; v < V; ++v) acc[p][v] = to.bias ? load(to.bias + f + v * LANES) : Vec{};
  const long taps = t.w1 - t.w0, others = (s.kernel_w - taps) * channels * s.padded;
  const float* line = seen(s, image, t, oh, ow);
  const float* weights = w + first_weight(s, t) * channels + f;
  for (int kh = t.h0; kh < t.h1; ++kh, line += down, weights += others) {
    const float* x = line;
    for (long kw = 0; kw < taps; ++kw, x += right)
      for (int c = 0; c < channels; ++c, weights += s.padded) {
        Vec weight[V];
        for (int v = 0; v < V; ++v) weight[v] = load(weights + v * LANES);
        for (int p = 0; p < P; ++p) {
          float value = x[p * step + c];
          for (int v = 0; v < V; ++v) acc[p][v] += weight[v] * value;
        }
      }
  }
  if (kept >= V * LANES) {
    if (to.add)
      UNROLLED for (int p = 0; p < P; ++p)
        UNROLLED for (int v = 0; v < V; ++v) acc[p][v] += load(y + p * s.out_pixel + v * LANES);
    if (to.relu)
      UNROLLED for (int p = 0; p < P; ++p)
        UNROLLED for (int v = 0; v < V; ++v) acc[p][v] = rectified(acc[p][v]);
    UNROLLED for (int p = 0; p < P; ++p)
      UNROLLED for (int v = 0; v < V; ++v) store(y + p * s.out_pixel + v * LANES, acc[p][v]);
    return;
  }
  Vec all[P][V];  // in memory, for a copy of some
  UNROLLED for (int p = 0; p < P; ++p)
    UNROLLED for (int v = 0; v < V; ++v) all[p][v] = acc[p][v];
  for (int p = 0; p < P; ++p, y += s.out_pixel) {
    const float* sums = reinterpret_cast<const float*>(all[p]);
    for (int k = 0; k < kept; ++k) {
      const float sum = to.add ? y[k] + sums[k] : sums[k];
      y[k] = to.relu && sum < 0 ? 0.0f : sum;
    }
  }
}

template <int P, int V, int D, int C>
static void up_to(int count, const Shape& s, const float* image, const float* w, Output to, Taps t, int oh, int ow, int f,
                  int kept) {
  if constexpr (P > 1) {
    if (count < P) return up_to<P - 1, V, D, C>(count, s, image, w, to, t, oh, ow, f, kept);
  }
  outputs<P, V, D, C>(s, image, w, to, t, oh, ow, f, kept);
}

// n / d, rounded up.
static inline int up(int n, int d) { return d == 1 ? n : n > 0 ? (n + d - 1) / d : -(-n / d); }

// The taps that output row oh has on an image, and with them the stretches of its outputs that have the same ones:
// f(taps, from, to).
template <typename F>
static void stretches(const Shape& s, int oh, const F& f) {
  Taps t{0, s.kernel_h, 0, s.kernel_w};
  const int above = oh * s.stride_h - s.top;
  while (t.h0 < t.h1 && above + t.h0 * s.rate_h < 0) ++t.h0;
  while (t.h1 > t.h0 && above + (t.h1 - 1) * s.rate_h >= s.height) --t.h1;
  for (int at = 0, end; at < s.out_width; at = end) {
    end = s.out_width;
    t.w0 = 0, t.w1 = s.kernel_w;
    for (int k = 0; k < s.kernel_w; ++k) {
      const int first = up(s.left - k * s.rate_w, s.stride_w);
      const int last = up(s.left - k * s.rate_w + s.width, s.stride_w);
      if (at < first) t.w0 = k + 1, end = std::min(end, first);
      else if (at >= last) t.w1 = std::min(t.w1, k);
      else end = std::min(end, last);
    }
    f(t, at, end);
  }
}

template <int P, int V, int D = 0, int C = 0>
static void row(const Shape& s, const float* image, const float* w, Output out, int oh, int f) {
  stretches(s, oh, [&](const Taps& t, int at, int end) {
    // In nearly equal pieces: a piece of one would wait for its own sums.
    const long length = end - at, pieces = (length + P - 1) / P;
    for (long i = 0; i < pieces; ++i) {
      const int from = length * i / pieces, to = length * (i + 1) / pieces;
      up_to<P, V, D, C>(to - from, s, image, w, out, t, oh, at + from, f, s.features - f);
    }
  });
}

// Rows of up to two vectors of features, from f on, of an image of C channels.
template <int C>
static void few_channels_row(const Shape& s, const float* image, const float* w, Output out, int oh, int f, int vectors) {
  if (s.stride_w > 1) {
    if (vectors == 1) row<PIXELS_1, 1, 0, C>(s, image, w, out, oh, f);
    else row<PIXELS_2, 2, 0, C>(s, image, w, out, oh, f);
  } else if (vectors == 1) row<PIXELS_1, 1, C, C>(s, image, w, out, oh, f);
  else row<PIXELS_2, 2, C, C>(s, image, w, out, oh, f);
}

void dense(const Shape& s, const float* image, const float* w, const float* bias, bool add, bool relu, float* y) {
  const Output out{bias, add, relu, y};
  const int few = s.pixel == s.channels && (s.channels == 1 || s.channels == 3) ? s.channels : 0;
  // Short rows in one piece each: the weights are then read once a row.
  const int most = few || s.out_width <= PIXELS_2 ? 2 : WIDE;
  for (int f = 0; f < s.features;) {
    int vectors = std::min(most, (s.features - f + LANES - 1) / LANES);
    for (int oh = 0; oh < s.out_height; ++oh) {
      if (few == 1) few_channels_row<1>(s, image, w, out, oh, f, vectors);
      else if (few == 3) few_channels_row<3>(s, image, w, out, oh, f, vectors);
      else switch (vectors) {
          case 1:
            if (s.pixel * s.stride_w == 16) row<PIXELS_1, 1, 16>(s, image, w, out, oh, f);
            else row<PIXELS_1, 1>(s, image, w, out, oh, f);
            break;
          case 2: row<PIXELS_2, 2>(s, image, w, out, oh, f); break;
#if WIDE == 4
          case 3: row<PIXELS_3, 3>(s, image, w, out, oh, f); break;
          case 4: row<PIXELS_4, 4>(s, image, w, out, oh, f); break;
#endif
        }
    }
    f += vectors * LANES;
  }
}

// The products of T taps of C channels, `offsets` floats from each pixel, with V vectors of dy from f on, where y is
// positive if it is not null; all taps lie on the image. The sum of what they were multiplied with is added to db, if
// that is not null.
template <int C, int V, int T>
static void few_products(const Shape& s, const float* image, const float* y, const float* dy, float* dk, float* db,
                         const long* offsets, int f) {
  Vec acc[T][C][V], sum[V];
  const float* taps[T];
  for (int t = 0; t < T; ++t) {
    taps[t] = image + offsets[t];
    for (int c = 0; c < C; ++c)
      for (int v = 0; v < V; ++v) acc[t][c][v] = load(dk + (t * C + c) * (long)s.padded + f + v * LANES);
  }
  for (int v = 0; v < V; ++v) sum[v] = db ? load(db + f + v * LANES) : Vec{};
  dy += f, y += y ? f : 0;
  const long step = s.stride_w * C;
  for (int oh = 0; oh < s.out_height; ++oh) {
    long x = oh * s.stride_h * (long)s.width * C;
    for (int ow = 0; ow < s.out_width; ++ow, x += step, dy += s.out_pixel, y += y ? s.out_pixel : 0) {
      Vec g[V];
      for (int v = 0; v < V; ++v) {
        g[v] = load(dy + v * LANES);
        if (y) g[v] = load(y + v * LANES) > 0 ? g[v] : Vec{};
        sum[v] += g[v];
      }
      for (int t = 0; t < T; ++t)
        for (int c = 0; c < C; ++c)
          for (int v = 0; v < V; ++v) acc[t][c][v] += g[v] * taps[t][x + c];
    }
  }
  for (int t = 0; t < T; ++t)
    for (int c = 0; c < C; ++c)
      for (int v = 0; v < V; ++v) store(dk + (t * C + c) * (long)s.padded + f + v * LANES, acc[t][c][v]);
  for (int v = 0; v < V && db; ++v) store(db + f + v * LANES, sum[v]);
}

template <int C, int V, int T>
static void few_up_to(int count, const Shape& s, const float* image, const float* y, const float* dy, float* dk, float* db,
                      const long* offsets, int f) {
  if constexpr (T > 1) {
    if (count < T) return few_up_to<C, V, T - 1>(count, s, image, y, dy, dk, db, offsets, f);
  }
  few_products<C, V, T>(s, image, y, dy, dk, db, offsets, f);
}

template <int C, int V>
static void few_taps(const Shape& s, const float* image, const float* y, const float* dy, float* dk, float* db, int f) {
  constexpr int most = std::min(9, SUMS / (C * V));  // taps at a time
  const int taps = s.kernel_h * s.kernel_w, pieces = (taps + most - 1) / most;
  for (int i = 0; i < pieces; ++i) {
    const int from = taps * i / pieces, to = taps * (i + 1) / pieces;
    long offsets[most];
    for (int tap = from; tap < to; ++tap)
      offsets[tap - from] = (tap / s.kernel_w * s.rate_h * (long)s.width + tap % s.kernel_w * s.rate_w) * C;
    few_up_to<C, V, most>(to - from, s, image, y, dy, dk + from * C * (long)s.padded, i ? nullptr : db, offsets, f);
  }
}

void few_channels_kernel_gradient(const Shape& s, const float* image, const float* y, const float* dy, float* dk,
                                  float* db) {
  for (int f = 0; f < s.features;) {
    const int vectors = s.channels == 1 && s.features - f > LANES ? 2 : 1;
    switch (s.channels) {
      case 1:
        if (vectors == 2) few_taps<1, 2>(s, image, y, dy, dk, db, f);
        else few_taps<1, 1>(s, image, y, dy, dk, db, f);
        break;
      case 2: few_taps<2, 1>(s, image, y, dy, dk, db, f); break;
      case 3: few_taps<3, 1>(s, image, y, dy, dk, db, f); break;
      case 4: few_taps<4, 1>(s, image, y, dy, dk, db, f); break;
    }
    f += vectors * LANES;
  }
}

struct Many {  // images and gradients, and what they give
  const float *image, *dy;
  float* dk;
  int images;
  long next_image, next_dy;
};

// Q input channels from c on, V vectors of output channels from f on, one tap.
template <int Q, int V>
ALONE static void products(const Shape& s, const Many& m, int kh, int kw, int c, int f) {
  float* out = m.dk + ((kh * s.kernel_w + kw) * (long)s.channels + c) * s.padded + f;
  Vec acc[Q][V];
  for (int q = 0; q < Q; ++q)
    for (int v = 0; v < V; ++v) acc[q][v] = load(out + q * (long)s.padded + v * LANES);
  const int down = kh * s.rate_h - s.top, right = kw * s.rate_w - s.left;
  const int oh0 = std::max(0, up(-down, s.stride_h)), oh1 = std::min(s.out_height, up(s.height - down, s.stride_h));
  const int ow0 = std::max(0, up(-right, s.stride_w)), ow1 = std::min(s.out_width, up(s.width - right, s.stride_w));
  const long step = s.stride_w * s.pixel, next = s.out_pixel;
  for (int n = 0; n < m.images; ++n)
    for (int oh = oh0; oh < oh1; ++oh) {
      const float* x = m.image + n * m.next_image + c +
                       ((oh * s.stride_h + down) * (long)s.width + ow0 * s.stride_w + right) * s.pixel;
      const float* d = m.dy + n * m.next_dy + oh * s.out_line + ow0 * next + f;
      for (int ow = ow0; ow < ow1; ++ow, x += step, d += next) {
        Vec g[V];
        for (int v = 0; v < V; ++v) g[v] = load(d + v * LANES);
        for (int q = 0; q < Q; ++q)
          for (int v = 0; v < V; ++v) acc[q][v] += g[v] * x[q];
      }
    }
  for (int q = 0; q < Q; ++q)
    for (int v = 0; v < V; ++v) store(out + q * (long)s.padded + v * LANES, acc[q][v]);
}

template <int Q, int V>
static void channels_up_to(int count, const Shape& s, const Many& m, int kh, int kw, int c, int f) {
  if constexpr (Q > 1) {
    if (count < Q) return channels_up_to<Q - 1, V>(count, s, m, kh, kw, c, f);
  }
  products<Q, V>(s, m, kh, kw, c, f);
}

template <int Q, int V>
static void taps(const Shape& s, const Many& m, int f) {
  int pieces = (s.channels + Q - 1) / Q;
  for (int kh = 0; kh < s.kernel_h; ++kh)
    for (int kw = 0; kw < s.kernel_w; ++kw)
      for (int i = 0; i < pieces; ++i) {
        int from = s.channels * i / pieces, to = s.channels * (i + 1) / pieces;
        channels_up_to<Q, V>(to - from, s, m, kh, kw, from, f);
      }
}

void dense_kernel_gradient(const Shape& s, const float* image, const float* dy, float* dk, int images,
                           long next_image, long next_dy) {
  const Many m{image, dy, dk, images, next_image, next_dy};
  for (int f = 0; f < s.features;) {
    int vectors = std::min(WIDE, (s.features - f + LANES - 1) / LANES);
    switch (vectors) {
      case 1: taps<PIXELS_1, 1>(s, m, f); break;
      case 2: taps<PIXELS_2, 2>(s, m, f); break;
#if WIDE == 4
      case 3: taps<PIXELS_3, 3>(s, m, f); break;
      case 4: taps<PIXELS_4, 4>(s, m, f); break;
#endif
    }
    f += vectors * LANES;
  }
}

// P neighbouring outputs, V vectors of their channels, from where the first tap sees; T taps a row where that is known,
// else 0.
template <int P, int V, int T>
static void depthwise_outputs(const Shape& s, const Taps& t, const float* image, const float* w, Output to) {
  const long down = s.rate_h * (long)s.width * s.pixel, right = s.rate_w * s.pixel, step = s.stride_w * s.pixel;
  const int taps = T ? T : t.w1 - t.w0;
  Vec acc[P][V];
  UNROLLED for (int p = 0; p < P; ++p)
    UNROLLED for (int v = 0; v < V; ++v) acc[p][v] = to.bias ? load(to.bias + v * LANES) : Vec{};
  for (int kh = t.h0; kh < t.h1; ++kh, image += down, w += s.kernel_w * (long)s.padded) {
    const float *x = image, *weights = w;
    for (int kw = 0; kw < taps; ++kw, x += right, weights += s.padded)
      UNROLLED for (int v = 0; v < V; ++v) {
        const Vec weight = load(weights + v * LANES);
        UNROLLED for (int p = 0; p < P; ++p) acc[p][v] += weight * load(x + p * step + v * LANES);
      }
  }
  UNROLLED for (int p = 0; p < P; ++p)
    UNROLLED for (int v = 0; v < V; ++v)
      store(to.y + p * s.out_pixel + v * LANES, to.relu ? rectified(acc[p][v]) : acc[p][v]);
}

static inline int vectors_of(int features) { return features >= 4 * LANES ? 4 : features >= 2 * LANES ? 2 : 1; }

// All channels of some outputs, up to four vectors at a time: a line of the cache is then used as a whole.
template <int P, int T>
static void depthwise_channels(const Shape& s, const Taps& t, const float* image, const float* w, Output to) {
  for (int f = 0; f < s.features;) {
    const Output some{to.bias ? to.bias + f : nullptr, false, to.relu, to.y + f};
    const int vectors = vectors_of(s.features - f);
    (vectors == 4   ? depthwise_outputs<P, 4, T>
     : vectors == 2 ? depthwise_outputs<P, 2, T>
                    : depthwise_outputs<P, 1, T>)(s, t, image + f, w + f, some);
    f += vectors * LANES;
  }
}

void depthwise(const Shape& s, const float* image, const float* w, const float* bias, bool relu, float* y) {
  for (int oh = 0; oh < s.out_height; ++oh)
    stretches(s, oh, [&](const Taps& t, int at, int end) {
      const int taps = t.w1 - t.w0;
      auto several = taps == 1   ? depthwise_channels<DEEP, 1>
                     : taps == 2 ? depthwise_channels<DEEP, 2>
                     : taps == 3 ? depthwise_channels<DEEP, 3>
                                 : depthwise_channels<DEEP, 0>;
      auto one = taps == 3 ? depthwise_channels<1, 3> : depthwise_channels<1, 0>;
      for (int count; at < end; at += count) {
        count = end - at >= DEEP ? DEEP : 1;
        (count > 1 ? several : one)(s, t, seen(s, image, t, oh, at), w + first_weight(s, t),
                                    {bias, false, relu, y + oh * s.out_line + at * s.out_pixel});
      }
    });
}

// Of so many neighbouring outputs: T taps, V vectors of channels.
template <int T, int V>
static void depthwise_products(const Shape& s, int count, const float* x, const float* dy, float* dk) {
  const long right = s.rate_w * s.pixel, step = s.stride_w * s.pixel;
  Vec acc[T][V];
  UNROLLED for (int t = 0; t < T; ++t)
    UNROLLED for (int v = 0; v < V; ++v) acc[t][v] = load(dk + t * (long)s.padded + v * LANES);
  for (int i = 0; i < count; ++i, x += step, dy += s.out_pixel)
    UNROLLED for (int v = 0; v < V; ++v) {
      const Vec g = load(dy + v * LANES);
      UNROLLED for (int t = 0; t < T; ++t) acc[t][v] += g * load(x + t * right + v * LANES);
    }
  UNROLLED for (int t = 0; t < T; ++t)
    UNROLLED for (int v = 0; v < V; ++v) store(dk + t * (long)s.padded + v * LANES, acc[t][v]);
}

template <int T>
static void depthwise_taps(const Shape& s, int count, const float* x, const float* dy, float* dk) {
  for (int f = 0; f < s.features;) {
    const int vectors = vectors_of(s.features - f);
    (vectors == 4   ? depthwise_products<T, 4>
     : vectors == 2 ? depthwise_products<T, 2>
                    : depthwise_products<T, 1>)(s, count, x + f, dy + f, dk + f);
    f += vectors * LANES;
  }
}

void depthwise_kernel_gradient(const Shape& s, const float* image, const float* dy, float* dk) {
  for (int oh = 0; oh < s.out_height; ++oh)
    stretches(s, oh, [&](const Taps& all, int at, int end) {
      const float* g = dy + oh * s.out_line + at * s.out_pixel;
      for (Taps t = all; t.h0 < all.h1; ++t.h0)
        for (t.w0 = all.w0; t.w0 < all.w1; t.w0 += 3) {
          const int taps = std::min(3, all.w1 - t.w0);
          (taps == 3 ? depthwise_taps<3> : taps == 2 ? depthwise_taps<2> : depthwise_taps<1>)(
              s, end - at, seen(s, image, t, oh, at), g, dk + first_weight(s, t));
        }
    });
}

// V vectors of features of what `before_relu` does.
template <int V>
static void masked(const float* y, const float* dy, long pixel, long pixels, int padded, float* g, float* db) {
  Vec sum[V];
  for (int v = 0; v < V; ++v) sum[v] = db ? load(db + v * LANES) : Vec{};
  for (long i = 0; i < pixels; ++i, dy += pixel, y += y ? pixel : 0, g += padded)
    for (int v = 0; v < V; ++v) {
      Vec d = load(dy + v * LANES);
      if (y) d = load(y + v * LANES) > 0 ? d : Vec{};
      store(g + v * LANES, d);
      sum[v] += d;
    }
  for (int v = 0; v < V && db; ++v) store(db + v * LANES, sum[v]);
}

void before_relu(const float* y, const float* dy, long pixel, long pixels, int features, int padded, float* g,
                 float* db) {
  int whole = 0;
  for (int vectors; (vectors = std::min(WIDE, (features - whole) / LANES)) > 0; whole += vectors * LANES) {
    auto some = vectors == 4 ? masked<4> : vectors == 3 ? masked<3> : vectors == 2 ? masked<2> : masked<1>;
    some(y ? y + whole : nullptr, dy + whole, pixel, pixels, padded, g + whole, db ? db + whole : nullptr);
  }
  if (whole == padded) return;
  for (long i = 0; i < pixels; ++i, dy += pixel, y += y ? pixel : 0, g += padded) {
    for (int f = whole; f < features; ++f) {
      g[f] = !y || y[f] > 0 ? dy[f] : 0;
      if (db) db[f] += g[f];
    }
    for (int f = features; f < padded; ++f) g[f] = 0;
  }
}

// A float or a Vec, which as a template's argument would lose that it may lie anywhere.
template <typename T>
static inline T at(const float* p) {
  T value;
  std::memcpy(&value, p, sizeof value);
  return value;
}

// Of one window and one channel or vector of them: T is float or Vec.
template <typename T>
static T largest(const float* x, long line, long pixel, int rows, int columns) {
  T most = at<T>(x);
  for (int row = 0; row < rows; ++row)
    for (int column = 0; column < columns; ++column) {
      T one = at<T>(x + row * line + column * pixel);
      most = (one > most) | (one != one) ? one : most;  // what is not a number stays so
    }
  return most;
}

template <typename T, typename Mask>
static void to_largest(const float* x, const float* dy, long line, long pixel, int rows, int columns, bool add, float* dx) {
  const T most = largest<T>(x, line, pixel, rows, columns), d = at<T>(dy);
  Mask open = ~Mask{};
  for (int row = 0; row < rows; ++row)
    for (int column = 0; column < columns; ++column) {
      const long place = row * line + column * pixel;
      const T one = at<T>(x + place);
      const Mask here = open & ((one == most) | (one != one));
      T mine = here ? d : T{};
      if (add) mine += at<T>(dx + place);
      std::memcpy(dx + place, &mine, sizeof mine);
      open &= ~here;
    }
}

// f(first pixel of the window that lies on the image, its rows, its columns, output) for every output.
template <typename F>
static void each_window(const Windows& s, const F& f) {
  for (int oh = 0; oh < s.out_height; ++oh) {
    const int from = oh * s.stride_h - s.top, h0 = std::max(0, from), h1 = std::min(s.height, from + s.rows);
    for (int ow = 0; ow < s.out_width; ++ow) {
      const int left = ow * s.stride_w - s.left, w0 = std::max(0, left), w1 = std::min(s.width, left + s.columns);
      f((h0 * (long)s.width + w0) * s.channels, h1 - h0, w1 - w0, (oh * (long)s.out_width + ow) * s.channels);
    }
  }
}

void max_pool(const Windows& s, const float* x, float* y) {
  const long pixel = s.channels, line = s.width * pixel;
  each_window(s, [&](long in, int rows, int columns, long out) {
    int c = 0;
    for (; c + LANES <= s.channels; c += LANES) store(y + out + c, largest<Vec>(x + in + c, line, pixel, rows, columns));
    for (; c < s.channels; ++c) y[out + c] = largest<float>(x + in + c, line, pixel, rows, columns);
  });
}

void max_pool_gradient(const Windows& s, const float* x, const float* dy, float* dx) {
  typedef int Mask __attribute__((vector_size(4 * LANES)));
  const long pixel = s.channels, line = s.width * pixel;
  const bool add = s.stride_h < s.rows || s.stride_w < s.columns;
  each_window(s, [&](long in, int rows, int columns, long out) {
    int c = 0;
    for (; c + LANES <= s.channels; c += LANES)
      to_largest<Vec, Mask>(x + in + c, dy + out + c, line, pixel, rows, columns, add, dx + in + c);
    for (; c < s.channels; ++c)
      to_largest<float, int>(x + in + c, dy + out + c, line, pixel, rows, columns, add, dx + in + c);
  });
}

// The next vectors of channels: f(first channel, T) with Vec for whole ones and float for the rest.
template <typename F>
static void each_vector(int channels, const F& f) {
  int c = 0;
  for (; c + LANES <= channels; c += LANES) f(c, Vec{});
  for (; c < channels; ++c) f(c, 0.0f);
}

template <typename T>
static inline void put(float* p, T value) { std::memcpy(p, &value, sizeof value); }

void moments(const float* x, const float* shift, long pixels, int channels, float* sums, float* squares) {
  each_vector(channels, [&](int c, auto zero) {
    using T = decltype(zero);
    const T from = at<T>(shift + c);
    T sum = at<T>(sums + c), square = at<T>(squares + c);
    const float* p = x + c;
    for (long i = 0; i < pixels; ++i, p += channels) {
      const T d = at<T>(p) - from;
      sum += d, square += d * d;
    }
    put(sums + c, sum), put(squares + c, square);
  });
}

void normalise(const Norm& n, const float* x, const float* residual, long pixels, float* y) {
  for (long i = 0; i < pixels; ++i, x += n.channels, y += n.channels, residual += residual ? n.channels : 0)
    each_vector(n.channels, [&](int c, auto zero) {
      using T = decltype(zero);
      T value = (at<T>(x + c) - at<T>(n.mean + c)) * at<T>(n.factor + c) + at<T>(n.bias + c);
      if (residual) value += at<T>(residual + c);
      put(y + c, n.relu ? (value < 0 ? T{} : value) : value);
    });
}

// What of dy passes ReLU.
template <typename T>
static inline T passed(const float* y, const float* dy) {
  const T d = at<T>(dy);
  return y ? (at<T>(y) > 0 ? d : T{}) : d;
}

void norm_sums(const Norm& n, const float* x, const float* y, const float* dy, long pixels, float* sums,
               float* products) {
  each_vector(n.channels, [&](int c, auto zero) {
    using T = decltype(zero);
    const T mean = at<T>(n.mean + c);
    T sum = at<T>(sums + c), product = at<T>(products + c);
    for (long i = 0, p = c; i < pixels; ++i, p += n.channels) {
      const T d = passed<T>(y ? y + p : nullptr, dy + p);
      sum += d, product += d * (at<T>(x + p) - mean);
    }
    put(sums + c, sum), put(products + c, product);
  });
}

void norm_gradient(const Norm& n, const float* x, const float* y, const float* dy, long pixels, float* dx,
                   float* residual) {
  for (long i = 0; i < pixels; ++i) {
    const long p = i * n.channels;
    each_vector(n.channels, [&](int c, auto zero) {
      using T = decltype(zero);
      const T d = passed<T>(y ? y + p + c : nullptr, dy + p + c), slope = at<T>(n.slope + c);
      if (residual) put(residual + p + c, d);
      put(dx + p + c, at<T>(n.factor + c) * (d - at<T>(n.bias + c) - (at<T>(x + p + c) - at<T>(n.mean + c)) * slope));
    });
  }
}

}  // namespace hdc::kernels
