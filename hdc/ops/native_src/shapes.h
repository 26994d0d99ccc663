// Shapes of convolutions and of their gradients, and images with their padding written out.
#pragma once

#include <cmath>
#include <numeric>
#include <vector>

#include "parallel.h"

namespace ffi = xla::ffi;
using Buffer = ffi::Buffer<ffi::F32>;
using Result = ffi::ResultBuffer<ffi::F32>;
using Floats = std::unique_ptr<float[]>;

namespace hdc {

struct Call {
  int64_t rate_h, rate_w, stride_h, stride_w, top, left;
};

// The numbers that every call of a convolution has.
#define HDC_NUMBERS \
  int64_t rate_h, int64_t rate_w, int64_t stride_h, int64_t stride_w, int64_t top, int64_t left, int64_t relu
#define HDC_CALL \
  Call { rate_h, rate_w, stride_h, stride_w, top, left }
#define HDC_NUMBER(name) .Attr<int64_t>(name)
#define HDC_BUFFER .Arg<Buffer>()
#define HDC_BUFFERS3 HDC_BUFFER HDC_BUFFER HDC_BUFFER
#define HDC_RESULT .Ret<Buffer>()
#define HDC_DEFINE(symbol, function, arguments, results)                                               \
  XLA_FFI_DEFINE_HANDLER_SYMBOL(                                                                        \
      symbol, function,                                                                                 \
      ffi::Ffi::Bind().Ctx<ffi::ThreadPool>() arguments results HDC_NUMBER("rate_h") HDC_NUMBER("rate_w") \
          HDC_NUMBER("stride_h") HDC_NUMBER("stride_w") HDC_NUMBER("top") HDC_NUMBER("left") HDC_NUMBER("relu"))

inline int whole(int features) {
  return (features + LANES - 1) / LANES * LANES;
}

// Rows of `count` floats, `from` floats apart, to rows of `to` floats, what is left filled with zeros.
inline void copy(const float* x, long from, float* y, long to, long rows, int count) {
  for (long i = 0; i < rows; ++i) {
    std::memcpy(y + i * to, x + i * from, count * sizeof(float));
    std::memset(y + i * to + count, 0, (to - count) * sizeof(float));
  }
}

// Rows of `count` floats, each in whole vectors: themselves where that is the same, else a copy that is kept.
inline const float* in_vectors(const float* x, long rows, int count, Floats& kept) {
  const int to = whole(count);
  if (count == to || rows * count == 0) return x;
  kept.reset(new float[rows * to]);
  copy(x, count, kept.get(), to, rows, count);
  return kept.get();
}

// Adds up `parts` arrays, `size` floats apart, each of rows of `from` floats, to rows of `count` floats, `to` apart.
inline void add_up(const float* sums, int parts, long size, long rows, int from, int count, float* out, long to) {
  for (long row = 0; row < rows; ++row, sums += from, out += to) {
    std::fill(out, out + count, 0.0f);
    for (int part = 0; part < parts; ++part)
      for (int f = 0; f < count; ++f) out[f] += sums[part * size + f];
  }
}

// Sums over the batch are taken in so many parts: enough for the threads, and few enough for the memory.
inline int parts_of(int batch) { return std::min(batch, 16); }

// Of a convolution of one group, with outputs that lie one after another.
inline Shape shape_of(const Buffer& image, const Buffer& kernel, const Buffer& out, const Call& call) {
  auto x = image.dimensions(), k = kernel.dimensions(), y = out.dimensions();
  Shape s;
  s.height = x[1], s.width = x[2], s.channels = x[3], s.pixel = x[3];
  s.out_height = y[1], s.out_width = y[2], s.features = k[3], s.padded = whole(k[3]);
  s.out_pixel = k[3], s.out_line = y[2] * k[3];
  s.kernel_h = k[0], s.kernel_w = k[1], s.rate_h = call.rate_h, s.rate_w = call.rate_w;
  s.top = call.top, s.left = call.left, s.stride_h = call.stride_h, s.stride_w = call.stride_w;
  return s;
}

// A 1x1 convolution of so many pixels, each of them `pixel` floats from the one before.
inline Shape pointwise(long pixels, int channels, long pixel, int features, int padded) {
  Shape s;
  s.height = s.out_height = 1, s.width = s.out_width = pixels, s.channels = channels, s.pixel = pixel;
  s.features = features, s.padded = padded, s.out_pixel = features, s.out_line = pixels * features;
  s.kernel_h = s.kernel_w = s.rate_h = s.rate_w = s.stride_h = s.stride_w = 1, s.top = s.left = 0;
  return s;
}

// An image with all that the taps of its outputs reach.
inline Shape spread(Shape s) {
  s.height = (s.out_height - 1) * s.stride_h + 1 + (s.kernel_h - 1) * s.rate_h;
  s.width = (s.out_width - 1) * s.stride_w + 1 + (s.kernel_w - 1) * s.rate_w;
  return s;
}

// Input pixels a stride apart, the `phase`-th of them first, see the same taps of a convolution: `first`, and every
// `every`-th from there, `count` in all. Back from the outputs to them leads a convolution of stride 1 by these taps,
// turned around, at `rate` and with `before` pixels of padding.
struct Phase {
  int length, count, first, every, rate, before;
};

inline Phase phase_of(int phase, int length, int kernel, int rate, int stride, int before) {
  const int common = std::gcd(rate, stride), every = stride / common, at = phase + before;
  Phase p{(length - phase + stride - 1) / stride, 0, 0, every, rate / common, 0};
  while (p.first < kernel && (at - p.first * rate) % stride) ++p.first;
  if (p.first < kernel) p.count = (kernel - 1 - p.first) / every + 1;
  p.before = (p.count - 1) * p.rate - (at - p.first * rate) / stride;
  return p;
}

// The convolution from the outputs back to the pixels of one phase per axis, and which taps it takes, turned around.
// `dx` is where its first output lies in a map of `pixel` floats a pixel.
struct Back {
  Shape shape;
  std::vector<int> taps;
  long dx;
};

// Of all phases that have pixels; a convolution without taps leaves zeros.
inline std::vector<Back> backwards(const Shape& s, long pixel) {
  std::vector<Back> all;
  for (int h = 0; h < std::min(s.stride_h, s.height); ++h)
    for (int w = 0; w < std::min(s.stride_w, s.width); ++w) {
      const Phase down = phase_of(h, s.height, s.kernel_h, s.rate_h, s.stride_h, s.top);
      const Phase right = phase_of(w, s.width, s.kernel_w, s.rate_w, s.stride_w, s.left);
      Back back{s, {}, (h * (long)s.width + w) * pixel};
      Shape& b = back.shape;
      b.height = s.out_height, b.width = s.out_width, b.channels = s.features;
      b.out_height = down.length, b.out_width = right.length, b.features = s.channels, b.padded = whole(s.channels);
      b.out_pixel = s.stride_w * pixel, b.out_line = s.stride_h * s.width * pixel;
      b.kernel_h = down.count, b.kernel_w = right.count, b.rate_h = down.rate, b.rate_w = right.rate;
      b.top = down.before, b.left = right.before, b.stride_h = b.stride_w = 1;
      for (int i = down.count; i-- > 0;)
        for (int j = right.count; j-- > 0;)
          back.taps.push_back((down.first + i * down.every) * s.kernel_w + right.first + j * right.every);
      all.push_back(back);
    }
  return all;
}

// Whether some pixels of an image have no part in any output for want of taps.
inline bool leaves_zeros(const std::vector<Back>& all) {
  return std::any_of(all.begin(), all.end(), [](const Back& back) { return back.taps.empty(); });
}

// `count` floats at `from` of a line of `total`, zeros beside them.
inline void among_zeros(const float* x, long from, long count, long total, float* line) {
  std::fill(line, line + from, 0.0f);
  std::memcpy(line + from, x, count * sizeof(float));
  std::fill(line + from + count, line + total, 0.0f);
}

// An image of few channels with its padding written out, in `slot`.
inline const float* padded(const Shape& s, const float* image, int slot) {
  const Shape all = spread(s);
  const long line = all.width * (long)s.channels;
  float* out = scratch(slot, all.height * line);
  const int w0 = std::clamp(s.left, 0, all.width), w1 = std::clamp(s.left + s.width, w0, all.width);
  for (int row = 0; row < all.height; ++row) {
    const int from = row - s.top;
    if (from < 0 || from >= s.height || w0 == w1) std::fill(out + row * line, out + (row + 1) * line, 0.0f);
    else
      among_zeros(image + (from * (long)s.width + w0 - s.left) * s.channels, w0 * (long)s.channels,
                  (w1 - w0) * (long)s.channels, line, out + row * line);
  }
  return out;
}

// An image that is told by its shape.
struct Image {
  Shape shape;
  const float* data;
};

// The number of `count` outputs, `stride` pixels apart, that lie before pixel `end` if the first lies at `first`.
inline int before(int end, int first, int stride, int count) {
  return std::clamp((end - first + stride - 1) / stride, 0, count);
}

// An image with the padding beside it written out, in `slot`, where it is little: rows are then computed in whole
// pieces, where outputs at their ends have other taps. An image as it is, where it is not.
inline Image widened(const Shape& s, const float* image, int slot) {
  long outside = 0;
  for (int k = 0; k < s.kernel_w; ++k) {
    const int first = k * s.rate_w - s.left;  // the image's column of this tap of the first output
    outside += first < 0 ? before(0, first, s.stride_w, s.out_width) : 0;
    outside += s.out_width - (first < s.width ? before(s.width, first, s.stride_w, s.out_width) : 0);
  }
  const int little = s.out_width <= 16 ? 5 : 10;  // short rows have no piece to spare
  if (outside == 0 || outside * little > s.out_width * (long)s.kernel_w) return {s, image};
  Shape wide = s;
  wide.width = spread(s).width, wide.left = 0;
  const long line = wide.width * s.pixel, row = s.width * s.pixel;
  float* out = scratch(slot, s.height * line);
  const int w0 = std::clamp(s.left, 0, wide.width), w1 = std::clamp(s.left + s.width, w0, wide.width);
  for (int h = 0; h < s.height; ++h, out += line, image += row)
    among_zeros(image + (w0 - s.left) * s.pixel, w0 * s.pixel, (w1 - w0) * s.pixel, line, out);
  return {wide, out - s.height * line};
}

}  // namespace hdc
