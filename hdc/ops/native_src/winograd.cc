// XLA custom calls: Winograd convolutions with a bias and ReLU, and their gradients, on a CPU. An empty bias is none, and
// an empty gradient is not wanted.
//
// Work is divided over XLA's own threads, by tiles. The parts in which a kernel's gradient is summed depend on the shapes
// alone, so a result is the same to the bit for any number of threads.

#include "shapes.h"

namespace hdc {
namespace {

constexpr int kTogether = 36;  // tiles at a time

Winograd winograd_of(const Shape& s, int channels, int features) {
  return {s.height, s.width, s.rate_h, channels, features, kTogether, std::min(channels, kPiece)};
}

// All tiles of so many images, image by image.
std::vector<Tile> tiles_of(const Winograd& s, int images) {
  const int reach = (kTile + 1) * s.rate;
  std::vector<Tile> all;
  for (int n = 0; n < images; ++n)
    for (int a = 0; a < std::min(s.rate, s.height); ++a)
      for (int b = 0; b < std::min(s.rate, s.width); ++b)
        for (int h = a; h < s.height; h += kTile * s.rate)
          for (int w = b; w < s.width; w += kTile * s.rate) {
            Tile t{n, h - s.rate, w - s.rate, std::min(kTile, (s.height - h + s.rate - 1) / s.rate),
                   std::min(kTile, (s.width - w + s.rate - 1) / s.rate), false};
            t.inside = t.rows == kTile && t.columns == kTile && t.h >= 0 && t.w >= 0 && t.h + reach < s.height &&
                       t.w + reach < s.width;
            all.push_back(t);
          }
  return all;
}

// Maps by a kernel, or back through it where it is turned.
void convolve(ffi::ThreadPool& pool, const Winograd& s, const std::vector<Tile>& tiles, const float* x, const float* w,
              bool turned, const float* bias, bool relu, float* y) {
  Floats u(new float[s.kernel()]);
  kernels::winograd_kernel(s, w, turned, u.get());
  const int count = tiles.size();
  parallel(pool, (count + kTogether - 1) / kTogether, [&](int task) {
    const int from = task * kTogether, some = std::min(kTogether, count - from);
    kernels::winograd(s, tiles.data() + from, some, count - from - 1, x, u.get(), bias, relu, y, scratch(0, s.work()));
  });
}

ffi::Error forward(ffi::ThreadPool pool, Buffer x, Buffer kernel, Buffer bias, Result y, HDC_NUMBERS) {
  const Shape s = shape_of(x, kernel, *y, HDC_CALL);
  const Winograd one = winograd_of(s, s.channels, s.features);
  convolve(pool, one, tiles_of(one, x.dimensions()[0]), x.typed_data(), kernel.typed_data(), false,
           bias.element_count() ? bias.typed_data() : nullptr, relu, y->typed_data());
  return ffi::Error::Success();
}

ffi::Error backward(ffi::ThreadPool pool, Buffer x, Buffer kernel, Buffer y, Buffer dy, Result dx, Result dk,
                    Result db, HDC_NUMBERS) {
  const Shape s = shape_of(x, kernel, dy, HDC_CALL);
  const Winograd one = winograd_of(s, s.channels, s.features);
  const int batch = x.dimensions()[0];
  const long pixels = s.height * (long)s.width, image = pixels * s.features;
  const bool wants_db = db->element_count();
  Floats own(relu || wants_db ? new float[batch * image] : nullptr), sums(new float[batch * (long)s.features]());
  const float* g = own ? own.get() : dy.typed_data();
  if (own)
    parallel(pool, batch, [&](int n) {
      kernels::before_relu(relu ? y.typed_data() + n * image : nullptr, dy.typed_data() + n * image, s.features, pixels,
                           s.features, s.features, own.get() + n * image, sums.get() + n * (long)s.features);
    });
  if (wants_db) add_up(sums.get(), batch, s.features, 1, s.features, s.features, db->typed_data(), s.features);
  const std::vector<Tile> tiles = tiles_of(one, batch);
  if (dx->element_count())
    convolve(pool, winograd_of(s, s.features, s.channels), tiles, g, kernel.typed_data(), true, nullptr, false,
             dx->typed_data());
  if (!dk->element_count()) return ffi::Error::Success();
  const int parts = parts_of(batch);
  const long size = one.kernel(), count = tiles.size();
  Floats parts_of_du(new float[parts * size]());
  parallel(pool, parts, [&](int part) {
    const long end = count / batch * (batch * (part + 1L) / parts);  // of its images
    for (long from = count / batch * (batch * (long)part / parts); from < end; from += kTogether) {
      const int some = std::min<long>(kTogether, end - from);
      kernels::winograd_gradient(one, tiles.data() + from, some, count - from - 1, x.typed_data(), g,
                                 parts_of_du.get() + part * size, scratch(0, one.work()));
    }
  });
  parallel(pool, one.blocks(), [&](int block) {
    const long from = size / one.blocks() * block;
    for (int part = 1; part < parts; ++part)
      for (long i = from; i < from + size / one.blocks(); ++i) parts_of_du[i] += parts_of_du[part * size + i];
  });
  kernels::winograd_kernel_back(one, parts_of_du.get(), dk->typed_data());
  return ffi::Error::Success();
}

}  // namespace
}  // namespace hdc

HDC_DEFINE(hdc_winograd_forward, hdc::forward, HDC_BUFFERS3, HDC_RESULT);
HDC_DEFINE(hdc_winograd_backward, hdc::backward, HDC_BUFFERS3 HDC_BUFFER, HDC_RESULT HDC_RESULT HDC_RESULT);
