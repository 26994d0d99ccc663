// XLA custom calls: depthwise convolutions, alone or with a pointwise one after it, with a bias and ReLU, and their
// gradients, on a CPU. An empty bias is none, and an empty gradient is not wanted.
//
// Work is divided over XLA's own threads, by images. The parts in which a kernel's gradient is summed depend
// on the shapes alone, so a result is the same to the bit from run to run.

#include "shapes.h"

namespace hdc {
namespace {

// Channels in whole vectors, from `first` on.
struct Range {
  int first, count;
};

// All channels, or where tasks are too few for the threads, pieces of them.
std::vector<Range> ranges(int padded, int tasks) {
  const int width = tasks >= 8 ? padded : 4 * LANES;
  std::vector<Range> all;
  for (int first = 0; first < padded; first += width) all.push_back({first, std::min(width, padded - first)});
  return all;
}

// Pixels in whole vectors: themselves where they are, else a copy in `slot`.
const float* in_slot(const float* image, long pixels, int channels, int slot) {
  const int to = whole(channels);
  if (channels == to) return image;
  float* out = scratch(slot, pixels * to);
  copy(image, channels, out, to, pixels, channels);
  return out;
}

// The other way: what is not real is left out.
void out_of_vectors(const float* from, long pixels, int channels, float* to) {
  for (const int padded = whole(channels); pixels > 0; --pixels, from += padded, to += channels)
    std::memcpy(to, from, channels * sizeof(float));
}

// A depthwise convolution and the way back from its outputs, of images and kernels in whole vectors; the outputs and
// their gradients lie `pixel` floats apart.
class Depthwise {
 public:
  Depthwise(const Shape& s, const float* kernel, long pixel) : s_(s) {
    s_.padded = s_.pixel = whole(s.channels), s_.out_pixel = pixel, s_.out_line = s.out_width * pixel;
    w_ = in_vectors(kernel, s.kernel_h * s.kernel_w, s.channels, kept_);
  }

  // Before `go_back`.
  void turn() {
    backs_ = backwards(s_, s_.padded);
    turned_.reset(new float[s_.kernel_h * s_.kernel_w * (long)s_.padded]);
    float* out = turned_.get();
    for (Back& back : backs_) {
      back.shape.pixel = s_.out_pixel;
      for (int tap : back.taps) out = std::copy_n(w_ + tap * (long)s_.padded, s_.padded, out);
    }
  }

  // An image is given with all its channels, outputs and their gradients from the range on.
  void forward(Range r, const float* image, const float* bias, bool relu, float* y) const {
    kernels::depthwise(of(s_, r), image + r.first, w_ + r.first, bias ? bias + r.first : nullptr, relu, y);
  }
  void kernel_gradient(Range r, const float* image, const float* dy, float* dk) const {
    kernels::depthwise_kernel_gradient(of(s_, r), image + r.first, dy, dk + r.first);
  }
  // Row by row: of strided outputs, several ways back write into each row, and the next one.
  void go_back(Range r, const float* dy, float* dx) const {
    for (int h = 0; h < backs_[0].shape.out_height; ++h) {  // the first has as many rows as any
      const float* w = turned_.get() + r.first;
      for (const Back& back : backs_) {
        Shape row = of(back.shape, r);
        row.top -= h, row.out_height = std::min(1, row.out_height - h);
        kernels::depthwise(row, dy, w, nullptr, false, dx + back.dx + r.first + h * row.out_line);  // without taps: zeros
        w += back.taps.size() * s_.padded;
      }
    }
  }

 private:
  static Shape of(Shape s, Range r) {
    s.features = r.count;
    return s;
  }

  Shape s_;
  const float* w_;
  Floats kept_, turned_;
  std::vector<Back> backs_;
};

ffi::Error forward(ffi::ThreadPool pool, Buffer x, Buffer kernel, Buffer bias, Result y, HDC_NUMBERS) {
  const Shape s = shape_of(x, kernel, *y, HDC_CALL);
  const int batch = x.dimensions()[0], padded = whole(s.channels);
  const long image = s.height * (long)s.width, pixels = s.out_height * (long)s.out_width;
  const Depthwise layer(s, kernel.typed_data(), padded);
  const bool fits = padded == s.channels;
  Floats wide_bias;
  const float* b = bias.element_count() ? in_vectors(bias.typed_data(), 1, s.features, wide_bias) : nullptr;
  const std::vector<Range> all = ranges(padded, fits ? batch : 8);
  parallel(pool, batch * all.size(), [&](int task) {
    const int n = task / all.size();
    const Range r = all[task % all.size()];
    float *out = y->typed_data() + n * pixels * s.features, *to = fits ? out : scratch(1, pixels * padded);
    layer.forward(r, in_slot(x.typed_data() + n * image * s.channels, image, s.channels, 0), b, relu, to + r.first);
    if (!fits) out_of_vectors(to, pixels, s.features, out);
  });
  return ffi::Error::Success();
}

ffi::Error backward(ffi::ThreadPool pool, Buffer x, Buffer kernel, Buffer y, Buffer dy, Result dx, Result dk,
                    Result db, HDC_NUMBERS) {
  const Shape s = shape_of(x, kernel, dy, HDC_CALL);
  const int batch = x.dimensions()[0], padded = whole(s.channels);
  const int taps = s.kernel_h * s.kernel_w, parts = parts_of(batch);
  const long image = s.height * (long)s.width, pixels = s.out_height * (long)s.out_width;
  const bool wants_dx = dx->element_count(), wants_dk = dk->element_count(), wants_db = db->element_count();
  const bool fits = padded == s.channels, copied = relu || wants_db || !fits;
  const std::vector<Range> all = ranges(padded, fits ? parts : 8);
  const int width = all[0].count;
  Depthwise layer(s, kernel.typed_data(), copied ? width : padded);
  if (wants_dx) layer.turn();
  const long size = (taps + 1) * (long)padded;  // the last row is db
  Floats sums(new float[parts * size]());
  parallel(pool, parts * all.size(), [&](int task) {
    const int part = task / all.size();
    const Range r = all[task % all.size()];
    float *sum = sums.get() + part * size, *db_sum = wants_db ? sum + taps * (long)padded + r.first : nullptr;
    for (int n = batch * (long)part / parts; n < batch * (part + 1L) / parts; ++n) {
      const long at = n * pixels * s.features + r.first;
      const float* g = dy.typed_data() + at;
      if (copied) {
        float* own = scratch(4, pixels * width);
        kernels::before_relu(relu ? y.typed_data() + at : nullptr, g, s.features, pixels,
                             std::min(r.count, s.features - r.first), width, own, db_sum);
        g = own;
      }
      if (wants_dk)
        layer.kernel_gradient(r, in_slot(x.typed_data() + n * image * s.channels, image, s.channels, 0), g, sum);
      if (!wants_dx) continue;
      float *out = dx->typed_data() + n * image * s.channels, *to = fits ? out : scratch(1, image * padded);
      layer.go_back(r, g, to);
      if (!fits) out_of_vectors(to, image, s.channels, out);
    }
  });
  if (wants_dk) add_up(sums.get(), parts, size, taps, padded, s.features, dk->typed_data(), s.features);
  if (wants_db) add_up(sums.get() + taps * (long)padded, parts, size, 1, padded, s.features, db->typed_data(), s.features);
  return ffi::Error::Success();
}

// The depthwise convolution of an image stays in the cache, and is computed again for the gradients.

ffi::Error separable_forward(ffi::ThreadPool pool, Buffer x, Buffer depthwise, Buffer kernel, Buffer bias, Result y,
                             HDC_NUMBERS) {
  const Shape s = shape_of(x, depthwise, *y, HDC_CALL);
  const int batch = x.dimensions()[0], features = kernel.dimensions()[3], padded = whole(s.channels);
  const long image = s.height * (long)s.width, pixels = s.out_height * (long)s.out_width;
  const Depthwise layer(s, depthwise.typed_data(), padded);
  const Shape point = pointwise(pixels, s.channels, padded, features, whole(features));
  Floats wide_kernel, wide_bias;
  const float* w = in_vectors(kernel.typed_data(), s.channels, features, wide_kernel);
  const float* b = bias.element_count() ? in_vectors(bias.typed_data(), 1, features, wide_bias) : nullptr;
  parallel(pool, batch, [&](int n) {
    float* maps = scratch(4, pixels * padded);
    const float* in = in_slot(x.typed_data() + n * image * s.channels, image, s.channels, 0);
    layer.forward({0, padded}, in, nullptr, false, maps);
    kernels::dense(point, maps, w, b, false, relu, y->typed_data() + n * pixels * features);
  });
  return ffi::Error::Success();
}

ffi::Error separable_backward(ffi::ThreadPool pool, Buffer x, Buffer depthwise, Buffer kernel, Buffer y, Buffer dy,
                              Result dx, Result d_depthwise, Result d_kernel, Result db, HDC_NUMBERS) {
  const Shape s = shape_of(x, depthwise, dy, HDC_CALL);
  const int batch = x.dimensions()[0], features = kernel.dimensions()[3], taps = s.kernel_h * s.kernel_w;
  const int channels = whole(s.channels), padded = whole(features), parts = parts_of(batch);
  const long image = s.height * (long)s.width, pixels = s.out_height * (long)s.out_width;
  const bool wants_dx = dx->element_count(), wants_db = db->element_count(), wants_kernels = d_kernel->element_count();
  const bool fits = channels == s.channels;
  const std::vector<Range> all = ranges(channels, 1);
  const int width = all[0].count;
  Depthwise layer(s, depthwise.typed_data(), width);
  if (wants_dx) layer.turn();
  // One part's sums: of the pointwise kernel, of the bias, of the depthwise kernel.
  const long bias_at = s.channels * (long)padded, depthwise_at = bias_at + padded;
  const long size = depthwise_at + taps * (long)channels;
  Floats sums(new float[parts * size]());
  // For each range of channels, the pointwise kernel backwards: [features, width].
  Floats back(new float[all.size() * features * width]());
  for (int c = 0; c < s.channels; ++c)
    for (int f = 0; f < features; ++f)
      back[(c / width * (long)features + f) * width + c % width] = kernel.typed_data()[c * (long)features + f];
  parallel(pool, parts, [&](int part) {
    float* sum = sums.get() + part * size;
    float *g = scratch(4, pixels * padded), *maps = scratch(5, pixels * width);
    for (int n = batch * (long)part / parts; n < batch * (part + 1L) / parts; ++n) {
      const long at = n * pixels * features;
      kernels::before_relu(relu ? y.typed_data() + at : nullptr, dy.typed_data() + at, features, pixels, features, padded,
                           g, wants_db ? sum + bias_at : nullptr);
      const float* in = in_slot(x.typed_data() + n * image * s.channels, image, s.channels, 0);
      float *out = dx->typed_data() + n * image * s.channels, *to = fits ? out : scratch(1, image * channels);
      for (const Range& r : all) {
        if (wants_kernels) {
          layer.forward(r, in, nullptr, false, maps);
          Shape point = pointwise(pixels, std::min(r.count, s.channels - r.first), width, features, padded);
          point.out_pixel = padded, point.out_line = pixels * padded;
          kernels::dense_kernel_gradient(point, maps, g, sum + r.first * (long)padded, 1, 0, 0);
        }
        const Shape to_maps = pointwise(pixels, features, padded, width, width);
        kernels::dense(to_maps, g, back.get() + r.first * (long)features, nullptr, false, false, maps);
        if (wants_kernels) layer.kernel_gradient(r, in, maps, sum + depthwise_at);
        if (wants_dx) layer.go_back(r, maps, to);
      }
      if (wants_dx && !fits) out_of_vectors(to, image, s.channels, out);
    }
  });
  if (wants_db) add_up(sums.get() + bias_at, parts, size, 1, padded, features, db->typed_data(), features);
  if (!wants_kernels) return ffi::Error::Success();
  add_up(sums.get(), parts, size, s.channels, padded, features, d_kernel->typed_data(), features);
  add_up(sums.get() + depthwise_at, parts, size, taps, channels, s.channels, d_depthwise->typed_data(), s.channels);
  return ffi::Error::Success();
}

}  // namespace
}  // namespace hdc

HDC_DEFINE(hdc_depthwise_forward, hdc::forward, HDC_BUFFERS3, HDC_RESULT);
HDC_DEFINE(hdc_depthwise_backward, hdc::backward, HDC_BUFFERS3 HDC_BUFFER, HDC_RESULT HDC_RESULT HDC_RESULT);
HDC_DEFINE(hdc_separable_forward, hdc::separable_forward, HDC_BUFFERS3 HDC_BUFFER, HDC_RESULT);
HDC_DEFINE(hdc_separable_backward, hdc::separable_backward, HDC_BUFFERS3 HDC_BUFFER HDC_BUFFER,
           HDC_RESULT HDC_RESULT HDC_RESULT HDC_RESULT);
