// XLA custom calls: batch normalisation, with a residual added and ReLU in the same pass, and its gradients, on a CPU.
// An empty residual is none, and its empty gradient is not wanted.
//
// Work is divided over XLA's own threads, by images, and sums are taken image by image: a result is the same to the
// bit for any number of threads.

#include "shapes.h"

namespace hdc {
namespace {

constexpr long kChunk = 512;  // pixels whose sums are taken in float, before they are added up in double

struct Maps {
  int batch, channels;
  long pixels;  // of an image
  long image() const { return pixels * channels; }
};

Maps maps_of(const Buffer& x) {
  auto sizes = x.dimensions();
  const int channels = sizes[sizes.size() - 1];
  return {int(sizes[0]), channels, long(x.element_count() / sizes[0] / channels)};
}

// Two sums for each channel over all pixels: f(image, first pixel, pixels, sums, others) adds those of some pixels.
template <typename F>
std::unique_ptr<double[]> sums_of(ffi::ThreadPool& pool, const Maps& m, const F& f) {
  const int count = 2 * m.channels;
  std::unique_ptr<double[]> sums(new double[m.batch * (long)count]());
  parallel(pool, m.batch, [&](int n) {
    double* all = sums.get() + n * (long)count;
    float* some = scratch(0, count);
    for (long from = 0; from < m.pixels; from += kChunk) {
      std::fill_n(some, count, 0.0f);
      f(n, from, std::min(kChunk, m.pixels - from), some, some + m.channels);
      for (int c = 0; c < count; ++c) all[c] += some[c];
    }
  });
  for (int n = 1; n < m.batch; ++n)
    for (int c = 0; c < count; ++c) sums[c] += sums[n * (long)count + c];
  return sums;
}

ffi::Error moments(ffi::ThreadPool pool, Buffer x, Result mean, Result variance) {
  const Maps m = maps_of(x);
  const float* shift = x.typed_data();  // the first pixel: differences from it are small where values are large
  auto sums = sums_of(pool, m, [&](int n, long from, long pixels, float* some, float* squares) {
    kernels::moments(x.typed_data() + n * m.image() + from * m.channels, shift, pixels, m.channels, some, squares);
  });
  const double all = m.batch * (double)m.pixels;
  for (int c = 0; c < m.channels; ++c) {
    const double less = sums[c] / all;
    mean->typed_data()[c] = shift[c] + less;
    variance->typed_data()[c] = std::max(0.0, sums[m.channels + c] / all - less * less);
  }
  return ffi::Error::Success();
}

// 1 / the standard deviation, for each channel.
std::unique_ptr<float[]> inverses(const Buffer& variance, int channels, float epsilon) {
  std::unique_ptr<float[]> all(new float[channels]);
  for (int c = 0; c < channels; ++c) all[c] = 1 / std::sqrt(double(variance.typed_data()[c]) + epsilon);
  return all;
}

ffi::Error normalise(ffi::ThreadPool pool, Buffer x, Buffer scale, Buffer bias, Buffer residual, Buffer mean,
                     Buffer variance, Result y, int64_t relu, float epsilon) {
  const Maps m = maps_of(x);
  auto factor = inverses(variance, m.channels, epsilon);
  for (int c = 0; c < m.channels; ++c) factor[c] *= scale.typed_data()[c];
  const Norm norm{m.channels, bool(relu), mean.typed_data(), factor.get(), bias.typed_data(), nullptr};
  const float* added = residual.element_count() ? residual.typed_data() : nullptr;
  parallel(pool, m.batch, [&](int n) {
    const long at = n * m.image();
    kernels::normalise(norm, x.typed_data() + at, added ? added + at : nullptr, m.pixels, y->typed_data() + at);
  });
  return ffi::Error::Success();
}

ffi::Error normalise_gradient(ffi::ThreadPool pool, Buffer x, Buffer scale, Buffer mean, Buffer variance, Buffer y,
                              Buffer dy, Result dx, Result d_scale, Result d_bias, Result d_residual, int64_t relu,
                              float epsilon) {
  const Maps m = maps_of(x);
  const float* positive = relu ? y.typed_data() : nullptr;
  Norm norm{m.channels, bool(relu), mean.typed_data(), nullptr, nullptr, nullptr};
  auto sums = sums_of(pool, m, [&](int n, long from, long pixels, float* some, float* products) {
    const long at = n * m.image() + from * m.channels;
    kernels::norm_sums(norm, x.typed_data() + at, positive ? positive + at : nullptr, dy.typed_data() + at, pixels, some,
                       products);
  });
  const double all = m.batch * (double)m.pixels;
  auto factor = inverses(variance, m.channels, epsilon);
  Floats mean_dy(new float[m.channels]), slope(new float[m.channels]);
  for (int c = 0; c < m.channels; ++c) {
    const double product = sums[m.channels + c], inverse = factor[c];
    d_bias->typed_data()[c] = sums[c], d_scale->typed_data()[c] = product * inverse;
    mean_dy[c] = sums[c] / all, slope[c] = product * inverse * inverse / all;
    factor[c] *= scale.typed_data()[c];
  }
  norm.factor = factor.get(), norm.bias = mean_dy.get(), norm.slope = slope.get();
  float* residual = d_residual->element_count() ? d_residual->typed_data() : nullptr;
  parallel(pool, m.batch, [&](int n) {
    const long at = n * m.image();
    kernels::norm_gradient(norm, x.typed_data() + at, positive ? positive + at : nullptr, dy.typed_data() + at, m.pixels,
                           dx->typed_data() + at, residual ? residual + at : nullptr);
  });
  return ffi::Error::Success();
}

}  // namespace
}  // namespace hdc

XLA_FFI_DEFINE_HANDLER_SYMBOL(hdc_moments, hdc::moments,
                              ffi::Ffi::Bind().Ctx<ffi::ThreadPool>() HDC_BUFFER HDC_RESULT HDC_RESULT);
XLA_FFI_DEFINE_HANDLER_SYMBOL(hdc_normalise, hdc::normalise,
                              ffi::Ffi::Bind().Ctx<ffi::ThreadPool>() HDC_BUFFERS3 HDC_BUFFERS3 HDC_RESULT
                                  HDC_NUMBER("relu").Attr<float>("epsilon"));
XLA_FFI_DEFINE_HANDLER_SYMBOL(hdc_normalise_gradient, hdc::normalise_gradient,
                              ffi::Ffi::Bind().Ctx<ffi::ThreadPool>() HDC_BUFFERS3 HDC_BUFFERS3 HDC_RESULT HDC_RESULT
                                  HDC_RESULT HDC_RESULT HDC_NUMBER("relu").Attr<float>("epsilon"));
