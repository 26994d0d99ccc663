// XLA custom calls: max pooling of windows that do not overlap, and its gradient, on a CPU.

#include "parallel.h"

namespace ffi = xla::ffi;
using Buffer = ffi::Buffer<ffi::F32>;
using Result = ffi::ResultBuffer<ffi::F32>;

namespace hdc {
namespace {

ffi::Error max_pool(ffi::ThreadPool pool, Buffer x, Result y, int64_t rows, int64_t columns) {
  auto in = x.dimensions(), out = y->dimensions();
  parallel(pool, out[0], [&](int n) {
    for (long row = 0; row < out[1]; ++row)
      best().max_pool(x.typed_data() + (n * in[1] + row * rows) * in[2] * in[3], in[2], in[3], rows, columns, out[2],
                      y->typed_data() + (n * out[1] + row) * out[2] * out[3]);
  });
  return ffi::Error::Success();
}

ffi::Error max_pool_gradient(ffi::ThreadPool pool, Buffer x, Buffer dy, Result dx, int64_t rows, int64_t columns) {
  auto in = x.dimensions(), out = dy.dimensions();
  const bool covered = out[1] * rows == in[1] && out[2] * columns == in[2];
  parallel(pool, out[0], [&](int n) {
    const long image = in[1] * in[2] * in[3];
    if (!covered) std::memset(dx->typed_data() + n * image, 0, image * sizeof(float));
    for (long row = 0; row < out[1]; ++row) {
      const long at = n * image + row * rows * in[2] * in[3];
      best().max_pool_gradient(x.typed_data() + at, dy.typed_data() + (n * out[1] + row) * out[2] * out[3], in[2],
                               in[3], rows, columns, out[2], dx->typed_data() + at);
    }
  });
  return ffi::Error::Success();
}

}  // namespace
}  // namespace hdc

#define HDC_WINDOW .Attr<int64_t>("rows").Attr<int64_t>("columns")

XLA_FFI_DEFINE_HANDLER_SYMBOL(
    hdc_max_pool, hdc::max_pool,
    ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().Arg<Buffer>().Ret<Buffer>() HDC_WINDOW);
XLA_FFI_DEFINE_HANDLER_SYMBOL(
    hdc_max_pool_gradient, hdc::max_pool_gradient,
    ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().Arg<Buffer>().Arg<Buffer>().Ret<Buffer>() HDC_WINDOW);
