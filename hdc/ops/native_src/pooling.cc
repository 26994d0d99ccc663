// XLA custom calls: max pooling and its gradient, on a CPU.

#include "shapes.h"

namespace hdc {
namespace {

Windows windows_of(const Buffer& image, const Buffer& out, int64_t rows, int64_t columns, const Call& call) {
  auto x = image.dimensions(), y = out.dimensions();
  return {int(x[1]), int(x[2]), int(x[3]), int(y[1]), int(y[2]), int(rows), int(columns),
          int(call.stride_h), int(call.stride_w), int(call.top), int(call.left)};
}

ffi::Error max_pool(ffi::ThreadPool pool, Buffer x, Result y, int64_t rows, int64_t columns, int64_t stride_h,
                    int64_t stride_w, int64_t top, int64_t left) {
  const Windows s = windows_of(x, *y, rows, columns, {1, 1, stride_h, stride_w, top, left});
  const int batch = x.dimensions()[0];
  const long image = x.element_count() / batch, out = y->element_count() / batch;
  parallel(pool, batch, [&](int n) { kernels::max_pool(s, x.typed_data() + n * image, y->typed_data() + n * out); });
  return ffi::Error::Success();
}

ffi::Error max_pool_gradient(ffi::ThreadPool pool, Buffer x, Buffer dy, Result dx, int64_t rows, int64_t columns,
                             int64_t stride_h, int64_t stride_w, int64_t top, int64_t left) {
  const Windows s = windows_of(x, dy, rows, columns, {1, 1, stride_h, stride_w, top, left});
  const int batch = x.dimensions()[0];
  const long image = x.element_count() / batch, out = dy.element_count() / batch;
  // Each pixel in one window: nothing needs to be zero before.
  const bool covered = top == 0 && left == 0 && stride_h == rows && stride_w == columns &&
                       s.out_height * rows == s.height && s.out_width * columns == s.width;
  parallel(pool, batch, [&](int n) {
    float* to = dx->typed_data() + n * image;
    if (!covered) std::memset(to, 0, image * sizeof(float));
    kernels::max_pool_gradient(s, x.typed_data() + n * image, dy.typed_data() + n * out, to);
  });
  return ffi::Error::Success();
}

}  // namespace
}  // namespace hdc

#define HDC_WINDOW                                                                                           \
  HDC_NUMBER("rows") HDC_NUMBER("columns") HDC_NUMBER("stride_h") HDC_NUMBER("stride_w") HDC_NUMBER("top") \
      HDC_NUMBER("left")

XLA_FFI_DEFINE_HANDLER_SYMBOL(hdc_max_pool, hdc::max_pool,
                              ffi::Ffi::Bind().Ctx<ffi::ThreadPool>() HDC_BUFFER HDC_RESULT HDC_WINDOW);
XLA_FFI_DEFINE_HANDLER_SYMBOL(hdc_max_pool_gradient, hdc::max_pool_gradient,
                              ffi::Ffi::Bind().Ctx<ffi::ThreadPool>() HDC_BUFFER HDC_BUFFER HDC_RESULT HDC_WINDOW);
