// XLA custom calls: depthwise convolutions, alone or with a pointwise one after it, with a bias and ReLU, and their
// gradients, on a CPU. An empty bias is none, and an empty gradient is not wanted.
//
// Work is divided over XLA's own threads, by images. The parts in which a kernel's gradient is summed depend
// on the shapes alone, so a result is the same to the bit from run to run.

#include "channels.h"

namespace hdc {
namespace {

ffi::Error forward(ffi::ThreadPool pool, Buffer x, Buffer kernel, Buffer bias, Result y, HDC_NUMBERS) {
  const Shape s = shape_of(x, kernel, *y, HDC_CALL);
  const int batch = x.dimensions()[0], lanes = best().lanes, blocks = s.padded / lanes;
  const long image = s.height * (long)s.width * s.channels, out = s.out_height * s.out_line;
  Floats wide_bias;
  const float* b = bias.element_count() ? in_vectors(bias.typed_data(), 1, s.features, wide_bias) : nullptr;
  const std::vector<Back> none;
  parallel(pool, batch * blocks, [&](int task) {
    const int n = task / blocks, first = task % blocks * lanes;
    Channels channels(s, none, kernel.typed_data(), s.features, first);
    channels.take(x.typed_data() + n * image);
    channels.forward(b ? b + first : nullptr, relu, y->typed_data() + n * out + first, s.features);
  });
  return ffi::Error::Success();
}

ffi::Error backward(ffi::ThreadPool pool, Buffer x, Buffer kernel, Buffer y, Buffer dy, Result dx, Result dk,
                    Result db, HDC_NUMBERS) {
  const Shape s = shape_of(x, kernel, dy, HDC_CALL);
  const int batch = x.dimensions()[0], lanes = best().lanes, blocks = s.padded / lanes;
  const int taps = s.kernel_h * s.kernel_w, parts = parts_of(batch);
  const long image = s.height * (long)s.width * s.channels, pixels = s.out_height * (long)s.out_width;
  const bool wants_dx = dx->element_count(), wants_dk = dk->element_count(), wants_db = db->element_count();
  const long block = (taps + 1) * (long)lanes, size = blocks * block;  // the last row is db
  Floats sums(new float[parts * size]());
  const std::vector<Back> backs = backwards(s, s.channels);
  parallel(pool, parts * blocks, [&](int task) {
    const int part = task / blocks, first = task % blocks * lanes;
    Channels channels(s, backs, kernel.typed_data(), s.features, first);
    float *sum = sums.get() + task * block, *g = scratch(4, pixels * lanes);
    for (int n = batch * (long)part / parts; n < batch * (part + 1L) / parts; ++n) {
      const long at = n * pixels * s.features + first;
      best().before_relu(relu ? y.typed_data() + at : nullptr, dy.typed_data() + at, s.features, pixels,
                         channels.count(), lanes, g, wants_db ? sum + taps * (long)lanes : nullptr);
      if (wants_dk) {
        channels.take(x.typed_data() + n * image);
        channels.kernel_gradient(g, sum);
      }
      if (wants_dx) channels.input_gradient(g, dx->typed_data() + n * image);
    }
  });
  for (int b = 0; b < blocks; ++b) {
    const int first = b * lanes, count = std::min(lanes, s.features - first);
    const float* sum = sums.get() + b * block;
    if (wants_dk) add_up(sum, parts, size, taps, lanes, count, dk->typed_data() + first, s.features);
    if (wants_db) add_up(sum + taps * lanes, parts, size, 1, lanes, count, db->typed_data() + first, count);
  }
  return ffi::Error::Success();
}

// The depthwise convolution of an image stays in the cache, and is computed again for the gradients.

ffi::Error separable_forward(ffi::ThreadPool pool, Buffer x, Buffer depthwise, Buffer kernel, Buffer bias, Result y,
                             HDC_NUMBERS) {
  const Shape s = shape_of(x, depthwise, *y, HDC_CALL);
  const Kernels& kernels = best();
  const int batch = x.dimensions()[0], lanes = kernels.lanes, features = kernel.dimensions()[3];
  const long image = s.height * (long)s.width * s.channels, pixels = s.out_height * (long)s.out_width;
  const Shape point = pointwise(pixels, s.channels, s.padded, features, whole(features));
  Floats wide_kernel, wide_bias;
  const float* w = in_vectors(kernel.typed_data(), s.channels, features, wide_kernel);
  const float* b = bias.element_count() ? in_vectors(bias.typed_data(), 1, features, wide_bias) : nullptr;
  const std::vector<Back> none;
  parallel(pool, batch, [&](int n) {
    float* maps = scratch(4, pixels * s.padded);
    for (int first = 0; first < s.channels; first += lanes) {
      Channels channels(s, none, depthwise.typed_data(), s.channels, first);
      channels.take(x.typed_data() + n * image);
      channels.forward(nullptr, false, maps + first, s.padded);
    }
    kernels.dense(point, maps, w, b, false, relu, y->typed_data() + n * pixels * features);
  });
  return ffi::Error::Success();
}

ffi::Error separable_backward(ffi::ThreadPool pool, Buffer x, Buffer depthwise, Buffer kernel, Buffer y, Buffer dy,
                              Result dx, Result d_depthwise, Result d_kernel, Result db, HDC_NUMBERS) {
  const Shape s = shape_of(x, depthwise, dy, HDC_CALL);
  const Kernels& kernels = best();
  const int batch = x.dimensions()[0], lanes = kernels.lanes, features = kernel.dimensions()[3];
  const int padded = whole(features), taps = s.kernel_h * s.kernel_w, blocks = s.padded / lanes;
  const long image = s.height * (long)s.width * s.channels, pixels = s.out_height * (long)s.out_width;
  const bool wants_dx = dx->element_count(), wants_db = db->element_count();
  const bool wants_kernels = d_kernel->element_count();
  // One part's sums: of the pointwise kernel, of the bias, of each vector of the depthwise kernel.
  const long point_size = (s.channels + 1) * (long)padded, block = taps * (long)lanes;
  const long size = point_size + blocks * block;
  const int parts = parts_of(batch);
  Floats sums(new float[parts * size]());
  // For each vector of channels, the pointwise kernel backwards: [features, lanes].
  Floats back(new float[blocks * (long)features * lanes]());
  for (int c = 0; c < s.channels; ++c)
    for (int f = 0; f < features; ++f)
      back[(c / lanes * (long)features + f) * lanes + c % lanes] = kernel.typed_data()[c * (long)features + f];
  const std::vector<Back> backs = backwards(s, s.channels);
  const Shape to_maps = pointwise(pixels, features, padded, lanes, lanes);
  parallel(pool, parts, [&](int part) {
    float* sum = sums.get() + part * size;
    Shape point = pointwise(pixels, lanes, lanes, features, padded);
    point.out_pixel = padded, point.out_line = pixels * padded;
    float *g = scratch(4, pixels * padded), *maps = scratch(5, pixels * lanes);
    for (int n = batch * (long)part / parts; n < batch * (part + 1L) / parts; ++n) {
      const long at = n * pixels * features;
      kernels.before_relu(relu ? y.typed_data() + at : nullptr, dy.typed_data() + at, features, pixels, features,
                          padded, g, wants_db ? sum + s.channels * (long)padded : nullptr);
      for (int b = 0; b < blocks; ++b) {
        Channels channels(s, backs, depthwise.typed_data(), s.channels, b * lanes);
        if (wants_kernels) {
          point.channels = channels.count();
          channels.take(x.typed_data() + n * image);
          channels.forward(nullptr, false, maps, lanes);
          kernels.dense_kernel_gradient(point, maps, g, sum + b * lanes * (long)padded, 1, 0, 0);
        }
        kernels.dense(to_maps, g, back.get() + b * (long)features * lanes, nullptr, false, false, maps);
        if (wants_kernels) channels.kernel_gradient(maps, sum + point_size + b * block);
        if (wants_dx) channels.input_gradient(maps, dx->typed_data() + n * image);
      }
    }
  });
  if (wants_db) add_up(sums.get() + s.channels * (long)padded, parts, size, 1, padded, features, db->typed_data(), features);
  if (!wants_kernels) return ffi::Error::Success();
  add_up(sums.get(), parts, size, s.channels, padded, features, d_kernel->typed_data(), features);
  for (int t = 0; t < taps; ++t)
    for (int b = 0; b < blocks; ++b)
      add_up(sums.get() + point_size + b * block + t * lanes, parts, size, 1, lanes,
             std::min(lanes, s.channels - b * lanes), d_depthwise->typed_data() + t * (long)s.channels + b * lanes,
             lanes);
  return ffi::Error::Success();
}

}  // namespace
}  // namespace hdc

HDC_DEFINE(hdc_depthwise_forward, hdc::forward, HDC_BUFFERS3, HDC_RESULT);
HDC_DEFINE(hdc_depthwise_backward, hdc::backward, HDC_BUFFERS3 HDC_BUFFER, HDC_RESULT HDC_RESULT HDC_RESULT);
HDC_DEFINE(hdc_separable_forward, hdc::separable_forward, HDC_BUFFERS3 HDC_BUFFER, HDC_RESULT);
HDC_DEFINE(hdc_separable_backward, hdc::separable_backward, HDC_BUFFERS3 HDC_BUFFER HDC_BUFFER,
           HDC_RESULT HDC_RESULT HDC_RESULT HDC_RESULT);
