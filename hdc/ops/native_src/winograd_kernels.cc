// Winograd convolutions by 3x3 kernels of stride 1, with padding by the rate.
//
// A convolution of rate r is r * r convolutions of rate 1 on the pixels r apart. Each is cut into tiles of M x M outputs,
// which see N x N inputs, N = M + 2. With V = B' d B of a tile's inputs, U = G g G' of the kernel, the outputs are
// A' (sum over channels of U * V) A: N * N products of small matrices [tiles, channels] x [channels, features], and
// N * N / (M * M) multiplications an output where the direct way needs 9 (Lavin and Gray 2016, arXiv 1509.09308; ' is the
// transpose). Of M = 2, 3 and 4, 3 was the fastest for most shapes.
//
// The gradient by the input is the same with the kernel turned around. The gradient by the kernel is the transpose of
// all that: dU = V' (A dy A'), summed over the tiles, and dg = G' dU G.

#include "vectors.h"

namespace hdc::kernels {

constexpr int M = kTile, N = kTile + 2;

// Of the points 0, p, -p, q and infinity. The error depends on the points: these are the best of many.
struct Axis {
  static constexpr float p = 0.75f, pp = p * p, q = 1.5f, qq = q * q;
  static constexpr float zero = 1 / (pp * q), plus = 1 / (2 * pp * (p - q)), minus = -1 / (2 * pp * (p + q)),
                         third = 1 / (q * (qq - pp));
  static void input(const Vec* d, Vec* v) {
    const Vec a = d[3] - q * d[2], b = d[2] - q * d[1], c = p * b;
    v[0] = a - pp * (d[1] - q * d[0]), v[1] = a + c, v[2] = a - c, v[3] = d[3] - pp * d[1];
    v[4] = d[4] - q * d[3] - pp * b;
  }
  static void output(const Vec* m, Vec* y) {
    const Vec a = m[1] + m[2], b = m[1] - m[2];
    y[0] = m[0] + a + m[3], y[1] = p * b + q * m[3], y[2] = pp * a + qq * m[3] + m[4];
  }
  static void output_back(const Vec* y, Vec* m) {
    const Vec a = y[0] + pp * y[2], b = p * y[1];
    m[0] = y[0], m[1] = a + b, m[2] = a - b, m[3] = y[0] + q * y[1] + qq * y[2], m[4] = y[2];
  }
  static void kernel(const Vec* g, Vec* u) {
    const Vec a = g[0] + pp * g[2], b = p * g[1];
    u[0] = zero * g[0], u[1] = plus * (a + b), u[2] = minus * (a - b), u[3] = third * (g[0] + q * g[1] + qq * g[2]);
    u[4] = g[2];
  }
  static void kernel_back(const Vec* u, Vec* g) {
    const Vec a = plus * u[1], b = minus * u[2], c = third * u[3];
    g[0] = zero * u[0] + a + b + c, g[1] = p * (a - b) + q * c, g[2] = pp * (a + b) + qq * c + u[4];
  }
};

// A transform of I x I vectors to O x O, `get(i, j)` to `put(i, j, vector)`: along the rows, then along the columns. What
// lies between is in memory: there are more vectors of it than registers, mostly.
template <int I, int O, void (*axis)(const Vec*, Vec*), typename Get, typename Put>
static inline void both(const Get& get, const Put& put) {
  Vec half[O][I];
  UNROLLED for (int i = 0; i < I; ++i) {
    Vec row[I], to[O];
    UNROLLED for (int j = 0; j < I; ++j) row[j] = get(i, j);
    axis(row, to);
    UNROLLED for (int j = 0; j < O; ++j) half[j][i] = to[j];
  }
#pragma GCC unroll 1  // a tenth less time of 16 channels with AVX2
  for (int j = 0; j < O; ++j) {
    Vec column[I], to[O];
    UNROLLED for (int i = 0; i < I; ++i) column[i] = half[j][i];
    axis(column, to);
    UNROLLED for (int i = 0; i < O; ++i) put(i, j, to[i]);
  }
}

constexpr int kAhead = 2;  // tiles to fetch ahead

// Whether a tile of so many channels or features is little enough to be fetched ahead: more would come too early, and
// drive out what is in use (measured on Zen 4: 64 channels of 4 x 4 lose 20 %, 16 channels win 15 %).
static inline bool fetches(int channels) { return M * M * (channels / LANES) <= 36; }

// The kernel [3, 3, channels, features] to [block][N * N][channels, block]. Turned, it is [3, 3, features, channels]
// that is given, and the taps go the other way round.
void winograd_kernel(const Winograd& s, const float* w, bool turned, float* u) {
  const int width = s.block();
  const long step = s.u_step(), tap = s.channels * (long)s.features;
  auto write = [&](const Vec (&g)[3][3], float* to) {
    both<3, N, Axis::kernel>([&](int i, int j) { return g[i][j]; },
                             [&](int i, int j, Vec u) { store(to + (i * N + j) * step, u); });
  };
  for (int f = 0; f < s.features; f += LANES) {
    float* to = u + f / width * (N * N * step) + f % width;
    for (int c = 0; c < s.channels; c += turned ? LANES : 1) {
      Vec g[3][3];
      if (!turned) {
        for (int k = 0; k < 9; ++k) g[k / 3][k % 3] = load(w + k * tap + c * (long)s.features + f);
        write(g, to + c * (long)width);
        continue;
      }
      alignas(64) float part[9][LANES][LANES];
      for (int k = 0; k < 9; ++k)
        for (int i = 0; i < LANES; ++i) {
          const float* from = w + (8 - k) * tap + (f + i) * (long)s.channels + c;
          for (int j = 0; j < LANES; ++j) part[k][j][i] = from[j];
        }
      for (int j = 0; j < LANES; ++j) {
        for (int k = 0; k < 9; ++k) g[k / 3][k % 3] = load(part[k][j]);
        write(g, to + (c + j) * (long)width);
      }
    }
  }
}

// B' d B of one tile's channels from c on: `some` of them, N * N vectors each to `v`.
static void input_transform(const Winograd& s, const Tile& t, const Tile& after, const float* x, int c, int some, float* v) {
  static const float zeros[kPiece] = {};
  const long step = s.v_step(), right = s.rate * (long)s.channels, down = right * s.width;
  const float* first = x + ((t.image * (long)s.height + t.h) * s.width + t.w) * s.channels + c;
  const long on = (((after.image - t.image) * (long)s.height + after.h - t.h) * s.width + after.w - t.w) * s.channels;
  for (int k = 0; k < some && fetches(some); k += LANES)  // what a later tile sees and this one does not, mostly
    UNROLLED for (int i = 2; i < N; ++i) UNROLLED for (int j = 2; j < N; ++j)
      __builtin_prefetch(first + on + i * down + j * right + k);
  if (t.inside) {
    for (int k = 0; k < some; k += LANES, first += LANES, v += LANES) {
      both<N, N, Axis::input>([&](int i, int j) { return load(first + i * down + j * right); },
                              [&](int i, int j, Vec d) { store(v + (i * N + j) * step, d); });
    }
    return;
  }
  // Off the image lie zeros.
  const float* at[N][N];
  bool on_w[N];
  UNROLLED for (int j = 0; j < N; ++j) on_w[j] = (unsigned)(t.w + j * s.rate) < (unsigned)s.width;
  UNROLLED for (int i = 0; i < N; ++i) {
    const bool on_h = (unsigned)(t.h + i * s.rate) < (unsigned)s.height;
    UNROLLED for (int j = 0; j < N; ++j) at[i][j] = on_h & on_w[j] ? first + i * down + j * right : zeros;
  }
  for (int k = 0; k < some; k += LANES, v += LANES) {
    both<N, N, Axis::input>([&](int i, int j) { return load(at[i][j] + k); },
                            [&](int i, int j, Vec d) { store(v + (i * N + j) * step, d); });
  }
}

// A' m A of one tile's features from f on, `some` of them, to y.
static void output_transform(const Winograd& s, const Tile& t, const Tile& after, const float* m, int f, int some, const float* bias, bool relu,
                             float* y) {
  const long step = s.m_step(), right = s.rate * (long)s.features, down = right * s.width;
  y += ((t.image * (long)s.height + t.h + s.rate) * s.width + t.w + s.rate) * s.features + f;
  const long on = (((after.image - t.image) * (long)s.height + after.h - t.h) * s.width + after.w - t.w) * s.features;
  for (int k = 0; k < some && fetches(some); k += LANES)
    UNROLLED for (int i = 0; i < M; ++i) UNROLLED for (int j = 0; j < M; ++j)
      __builtin_prefetch(y + on + i * down + j * right + k, 1);
  for (int k = 0; k < some; k += LANES, m += LANES, y += LANES) {
    const Vec b = bias ? load(bias + f + k) : Vec{};
    both<N, M, Axis::output>([&](int i, int j) { return load(m + (i * N + j) * step); },
                             [&](int i, int j, Vec out) {
                               if (i < t.rows && j < t.columns)
                                 store(y + i * down + j * right, relu ? rectified(out + b) : out + b);
                             });
  }
}

// A dy A' of one tile's features from f on, `some` of them: what reaches its products. Outputs off the image are zeros.
static void output_back(const Winograd& s, const Tile& t, const Tile& after, const float* dy, int f, int some, float* m) {
  static const float zeros[kPiece] = {};
  const long step = s.m_step(), right = s.rate * (long)s.features, down = right * s.width;
  dy += ((t.image * (long)s.height + t.h + s.rate) * s.width + t.w + s.rate) * s.features + f;
  const long on = (((after.image - t.image) * (long)s.height + after.h - t.h) * s.width + after.w - t.w) * s.features;
  for (int k = 0; k < some && fetches(some); k += LANES)
    UNROLLED for (int i = 0; i < M; ++i) UNROLLED for (int j = 0; j < M; ++j)
      __builtin_prefetch(dy + on + i * down + j * right + k);
  const float* at[M][M];
  UNROLLED for (int i = 0; i < M; ++i)
    UNROLLED for (int j = 0; j < M; ++j) at[i][j] = i < t.rows & j < t.columns ? dy + i * down + j * right : zeros;
  for (int k = 0; k < some; k += LANES, m += LANES) {
    both<M, N, Axis::output_back>([&](int i, int j) { return load(at[i][j] + k); },
                                  [&](int i, int j, Vec g) { store(m + (i * N + j) * step, g); });
  }
}

// y[P, V vectors] = x[P, channels] w[channels, V vectors], or added to it. Rows of x are `from` floats apart, those of
// w and y `width`.
template <int P, int V>
static void tile_products(const float* x, long from, int channels, const float* w, long width, bool add, float* y) {
  Vec acc[P][V];
  UNROLLED for (int p = 0; p < P; ++p)
    UNROLLED for (int v = 0; v < V; ++v) acc[p][v] = add ? load(y + p * width + v * LANES) : Vec{};
  for (int c = 0; c < channels; ++c, w += width) {
    Vec weight[V];
    for (int v = 0; v < V; ++v) weight[v] = load(w + v * LANES);
    for (int p = 0; p < P; ++p) {
      const float value = x[p * from + c];
      for (int v = 0; v < V; ++v) acc[p][v] += weight[v] * value;
    }
  }
  UNROLLED for (int p = 0; p < P; ++p)
    UNROLLED for (int v = 0; v < V; ++v) store(y + p * width + v * LANES, acc[p][v]);
}

template <int P, int V>
static void tiles_up_to(int count, const float* x, long from, int channels, const float* w, long width, bool add, float* y) {
  if constexpr (P > 1) {
    if (count < P) return tiles_up_to<P - 1, V>(count, x, from, channels, w, width, add, y);
  }
  tile_products<P, V>(x, from, channels, w, width, add, y);
}

// dU[Q channels, V vectors] += x[tiles, Q]' m[tiles, V vectors].
template <int Q, int V>
ALONE static void kernel_products(const float* x, long from, int tiles, const float* m, long width, float* du) {
  Vec acc[Q][V];
  UNROLLED for (int q = 0; q < Q; ++q)
    UNROLLED for (int v = 0; v < V; ++v) acc[q][v] = load(du + q * width + v * LANES);
  for (int t = 0; t < tiles; ++t, x += from, m += width) {
    Vec g[V];
    for (int v = 0; v < V; ++v) g[v] = load(m + v * LANES);
    for (int q = 0; q < Q; ++q)
      for (int v = 0; v < V; ++v) acc[q][v] += g[v] * x[q];
  }
  UNROLLED for (int q = 0; q < Q; ++q)
    UNROLLED for (int v = 0; v < V; ++v) store(du + q * width + v * LANES, acc[q][v]);
}

template <int Q, int V>
static void rows_up_to(int count, const float* x, long from, int tiles, const float* m, long width, float* du) {
  if constexpr (Q > 1) {
    if (count < Q) return rows_up_to<Q - 1, V>(count, x, from, tiles, m, width, du);
  }
  kernel_products<Q, V>(x, from, tiles, m, width, du);
}

// f(first, how many, first vector's float, P's and V's constants) for pieces of up to P of `count` by V vectors of
// `width` floats. So many vectors at a time as divide the width.
template <typename F>
static void each_piece(int count, int width, const F& f) {
  auto pieces = [&](auto most, auto vectors) {
    constexpr int P = decltype(most)::value, V = decltype(vectors)::value;
    const int n = (count + P - 1) / P;
    for (int v = 0; v < width; v += V * LANES)
      for (long i = 0; i < n; ++i) {
        const int from = count * i / n, to = count * (i + 1) / n;
        f(from, to - from, v, most, vectors);
      }
  };
  using std::integral_constant;
#if WIDE == 4
  if (width % (4 * LANES) == 0) return pieces(integral_constant<int, PIXELS_4>{}, integral_constant<int, 4>{});
#endif
  if (width % (2 * LANES) == 0) pieces(integral_constant<int, PIXELS_2>{}, integral_constant<int, 2>{});
  else pieces(integral_constant<int, PIXELS_1>{}, integral_constant<int, 1>{});
}

// The convolution of so many tiles by a transformed kernel; `last` is the last one that there is to fetch.
void winograd(const Winograd& s, const Tile* tiles, int count, int last, const float* x, const float* u,
              const float* bias, bool relu, float* y, float* work) {
  constexpr int E = N * N;
  const int width = s.block();
  float *v = work, *m = work + E * s.v_step();
  for (int block = 0; block < s.blocks(); ++block) {
    for (int c = 0; c < s.channels; c += s.piece) {
      const int some = std::min(s.piece, s.channels - c);
      if (block == 0 || some < s.channels)
        for (int t = 0; t < count; ++t)
          input_transform(s, tiles[t], tiles[std::min(t + kAhead, last)], x, c, some, v + t * (long)s.piece);
      for (int e = 0; e < E; ++e) {
        const float *in = v + e * s.v_step(), *w = u + (block * E + e) * s.u_step() + c * (long)width;
        float* out = m + e * s.m_step();
        each_piece(count, width, [&](int first, int n, int f, auto P, auto V) {
          tiles_up_to<P.value, V.value>(n, in + first * (long)s.piece, s.piece, some, w + f, width, c > 0,
                                        out + first * (long)width + f);
        });
      }
    }
    for (int t = 0; t < count; ++t)
      output_transform(s, tiles[t], tiles[std::min(t + kAhead, last)], m + t * (long)width, block * width, width, bias,
                       relu, y);
  }
}

// Adds to du, which lies as u does, what so many tiles give.
void winograd_gradient(const Winograd& s, const Tile* tiles, int count, int last, const float* x, const float* dy,
                       float* du, float* work) {
  constexpr int E = N * N;
  const int width = s.block();
  float *v = work, *m = work + E * s.v_step();
  for (int block = 0; block < s.blocks(); ++block) {
    for (int t = 0; t < count; ++t)
      output_back(s, tiles[t], tiles[std::min(t + kAhead, last)], dy, block * width, width, m + t * (long)width);
    for (int c = 0; c < s.channels; c += s.piece) {
      const int some = std::min(s.piece, s.channels - c);
      if (block == 0 || some < s.channels)
        for (int t = 0; t < count; ++t)
          input_transform(s, tiles[t], tiles[std::min(t + kAhead, last)], x, c, some, v + t * (long)s.piece);
      for (int e = 0; e < E; ++e) {
        const float *in = v + e * s.v_step(), *g = m + e * s.m_step();
        float* out = du + (block * E + e) * s.u_step() + c * (long)width;
        each_piece(some, width, [&](int first, int n, int f, auto P, auto V) {
          rows_up_to<P.value, V.value>(n, in + first, s.piece, count, g + f, width, out + first * (long)width + f);
        });
      }
    }
  }
}

// G' dU G to dk [3, 3, channels, features].
void winograd_kernel_back(const Winograd& s, const float* du, float* dk) {
  const int width = s.block();
  const long step = s.u_step(), tap = s.channels * (long)s.features;
  for (int f = 0; f < s.features; f += LANES)
    for (int c = 0; c < s.channels; ++c) {
      const float* from = du + f / width * (N * N * step) + f % width + c * (long)width;
      float* to = dk + c * (long)s.features + f;
      both<N, 3, Axis::kernel_back>([&](int i, int j) { return load(from + (i * N + j) * step); },
                                    [&](int i, int j, Vec g) { store(to + (i * 3 + j) * tap, g); });
    }
}

}  // namespace hdc::kernels
