// XLA custom calls: convolutions of stride 1, dense or depthwise, and their gradients, on a CPU.
//
// Work is divided over XLA's own threads. The division of a kernel gradient's sum depends on the number of
// threads alone, so a result is the same to the bit from run to run.

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>

#include "kernels.h"
#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;
using Buffer = ffi::Buffer<ffi::F32>;
using Result = ffi::ResultBuffer<ffi::F32>;

namespace hdc {
namespace {

const Kernels& best() {
  static const Kernels& chosen = []() -> const Kernels& {
#if defined(__x86_64__)
    const char* asked = std::getenv("HDC_NATIVE_ISA");  // for tests: a smaller one than the CPU has
    auto allowed = [&](const char* name) { return !asked || !*asked || !std::strcmp(asked, name); };
    if (allowed("avx512") && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq"))
      return avx512;
    if ((allowed("avx2") || allowed("avx512")) && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
      return avx2;
#endif
    return portable;
  }();
  return chosen;
}

// Memory that a thread keeps, so that it is mapped once; several at a time by slot.
float* scratch(int slot, size_t floats) {
  struct Kept {
    float* data = nullptr;
    size_t size = 0;
    ~Kept() { std::free(data); }
  };
  thread_local Kept kept[3];
  Kept& one = kept[slot];
  if (one.size < floats) {
    std::free(one.data);
    one.size = (floats + 15) / 16 * 16;
    one.data = static_cast<float*>(std::aligned_alloc(64, one.size * sizeof(float)));
    if (!one.data) std::abort();  // out of memory: nothing sensible is left to do
  }
  return one.data;
}

// Runs f(0) to f(tasks - 1) on the caller and on such threads of the pool as have time. The caller waits
// only for tasks that a thread has begun, so calls that wait for one another cannot stand still.
template <typename F>
void parallel(ffi::ThreadPool& pool, int tasks, const F& f) {
  struct State {
    std::atomic<int> next{0}, done{0};
    std::mutex mutex;
    std::condition_variable all;
  };
  auto state = std::make_shared<State>();
  auto work = [state, tasks, &f] {
    for (int i; (i = state->next++) < tasks;) {
      f(i);
      if (++state->done == tasks) {
        std::lock_guard<std::mutex> lock(state->mutex);
        state->all.notify_all();
      }
    }
  };
  int others = std::min<int>(pool.num_threads(), tasks) - 1;
  for (int i = 0; i < others; ++i) pool.Schedule(std::function<void()>(work));
  work();
  std::unique_lock<std::mutex> lock(state->mutex);
  state->all.wait(lock, [&] { return state->done == tasks; });
}

struct Attributes {
  int rate_h, rate_w, top, left;
};

int whole(int features, int lanes) { return (features + lanes - 1) / lanes * lanes; }

// Pixels of `count` channels, `from` floats apart, to rows of `to` floats, what is left filled with zeros.
void copy(const float* x, long from, float* y, long to, long pixels, int count) {
  for (long i = 0; i < pixels; ++i) {
    std::memcpy(y + i * to, x + i * from, count * sizeof(float));
    std::memset(y + i * to + count, 0, (to - count) * sizeof(float));
  }
}

// A few channels of an image with its padding written out: [s.height, s.width, lanes], from the image's
// pixel (-s.top, -s.left) on.
void unfold(const Shape& s, const float* image, int height, int width, int channels, int first, int count, int lanes,
            float* out) {
  for (int row = 0; row < s.height; ++row) {
    float* line = out + row * (long)s.width * lanes;
    int from = row - s.top, w0 = std::clamp(s.left, 0, s.width), w1 = std::clamp(s.left + width, w0, s.width);
    if (from < 0 || from >= height || w0 == w1) {
      std::memset(line, 0, s.width * (long)lanes * sizeof(float));
      continue;
    }
    std::memset(line, 0, w0 * (long)lanes * sizeof(float));
    const float* x = image + (from * (long)width + w0 - s.left) * channels + first;
    if (count == 16 && lanes == 16)  // of a size that the compiler knows
      for (int i = w0; i < w1; ++i, x += channels) std::memcpy(line + i * 16L, x, 64);
    else
      copy(x, channels, line + w0 * (long)lanes, lanes, w1 - w0, count);
    std::memset(line + w1 * (long)lanes, 0, (s.width - w1) * (long)lanes * sizeof(float));
  }
}

void run_dense(ffi::ThreadPool& pool, const Shape& s, int batch, const float* x, const float* w, float* y) {
  const Kernels& kernels = best();
  parallel(pool, batch, [&](int n) {
    kernels.dense(s, x + n * (long)s.height * s.width * s.channels, w,
                  y + n * (long)s.out_height * s.out_width * s.features);
  });
}

// s.height and s.width are those of the image as it is; w is [kernel_h, kernel_w, channels].
void run_depthwise(ffi::ThreadPool& pool, const Shape& given, int batch, const float* x, const float* w, float* y) {
  const Kernels& kernels = best();
  const int lanes = kernels.lanes, blocks = (given.channels + lanes - 1) / lanes;
  parallel(pool, batch * blocks, [&](int task) {
    int n = task / blocks, first = task % blocks * lanes, count = std::min(lanes, given.channels - first);
    Shape s = given;
    s.height = s.out_height + (s.kernel_h - 1) * s.rate_h;
    s.width = s.out_width + (s.kernel_w - 1) * s.rate_w;
    long pixels = s.out_height * (long)s.out_width;
    float* image = scratch(0, s.height * (long)s.width * lanes);
    unfold(s, x + n * (long)given.height * given.width * given.channels, given.height, given.width, given.channels,
           first, count, lanes, image);
    float* weights = scratch(1, s.kernel_h * s.kernel_w * (long)lanes);
    copy(w + first, given.channels, weights, lanes, s.kernel_h * s.kernel_w, count);
    float* out = y + n * pixels * given.channels + first;
    if (count == lanes) return kernels.depthwise(s, image, weights, out, given.channels);
    float* some = scratch(2, pixels * lanes);
    kernels.depthwise(s, image, weights, some, lanes);
    for (long i = 0; i < pixels; ++i) std::memcpy(out + i * given.channels, some + i * lanes, count * sizeof(float));
  });
}

bool is_depthwise(const Buffer& image, const Buffer& kernel) {
  return kernel.dimensions()[2] == 1 && image.dimensions()[3] > 1;
}

Shape shape_of(const Buffer& image, ffi::Span<const int64_t> kernel, ffi::Span<const int64_t> out, Attributes a) {
  auto x = image.dimensions();
  return Shape{int(x[1]), int(x[2]), int(x[3]), int(out[1]), int(out[2]), int(out[3]), 0,
               int(kernel[0]), int(kernel[1]), a.rate_h, a.rate_w, a.top, a.left};
}

ffi::Error forward(ffi::ThreadPool pool, Buffer x, Buffer kernel, Result y, int64_t rate_h, int64_t rate_w,
                   int64_t top, int64_t left) {
  Shape s = shape_of(x, kernel.dimensions(), y->dimensions(), {int(rate_h), int(rate_w), int(top), int(left)});
  int batch = x.dimensions()[0];
  if (is_depthwise(x, kernel)) {
    run_depthwise(pool, s, batch, x.typed_data(), kernel.typed_data(), y->typed_data());
    return ffi::Error::Success();
  }
  s.padded = whole(s.features, best().lanes);
  const float* w = kernel.typed_data();
  std::unique_ptr<float[]> wider;
  if (s.padded != s.features) {
    long rows = s.kernel_h * s.kernel_w * (long)s.channels;
    wider.reset(new float[rows * s.padded]);
    copy(w, s.features, wider.get(), s.padded, rows, s.features);
    w = wider.get();
  }
  run_dense(pool, s, batch, x.typed_data(), w, y->typed_data());
  return ffi::Error::Success();
}

// The same convolution backwards: of dy with the kernel turned around, and its channels swapped.
ffi::Error input_gradient(ffi::ThreadPool pool, Buffer dy, Buffer kernel, Result dx, int64_t rate_h, int64_t rate_w,
                          int64_t top, int64_t left) {
  auto k = kernel.dimensions();
  Shape s = shape_of(dy, k, dx->dimensions(),
                     {int(rate_h), int(rate_w), int((k[0] - 1) * rate_h - top), int((k[1] - 1) * rate_w - left)});
  const int batch = dy.dimensions()[0], taps = s.kernel_h * s.kernel_w;
  const float* w = kernel.typed_data();
  if (k[2] == 1 && s.features == s.channels && s.channels > 1) {
    std::unique_ptr<float[]> turned(new float[taps * (long)s.channels]);
    for (int t = 0; t < taps; ++t)
      std::memcpy(turned.get() + t * (long)s.channels, w + (taps - 1 - t) * (long)s.channels,
                  s.channels * sizeof(float));
    run_depthwise(pool, s, batch, dy.typed_data(), turned.get(), dx->typed_data());
    return ffi::Error::Success();
  }
  s.padded = whole(s.features, best().lanes);
  std::unique_ptr<float[]> turned(new float[taps * (long)s.channels * s.padded]());
  for (int t = 0; t < taps; ++t)
    for (int f = 0; f < s.features; ++f)
      for (int c = 0; c < s.channels; ++c)
        turned[(t * (long)s.channels + c) * s.padded + f] = w[((taps - 1 - t) * (long)s.features + f) * s.channels + c];
  run_dense(pool, s, batch, dy.typed_data(), turned.get(), dx->typed_data());
  return ffi::Error::Success();
}

ffi::Error kernel_gradient(ffi::ThreadPool pool, Buffer x, Buffer dy, Result dk, int64_t rate_h, int64_t rate_w,
                           int64_t top, int64_t left) {
  Shape s = shape_of(x, dk->dimensions(), dy.dimensions(), {int(rate_h), int(rate_w), int(top), int(left)});
  const Kernels& kernels = best();
  const int batch = x.dimensions()[0], lanes = kernels.lanes, taps = s.kernel_h * s.kernel_w;
  const long image = s.height * (long)s.width * s.channels, pixels = s.out_height * (long)s.out_width;
  const int groups = std::max(1, std::min<int>(batch, pool.num_threads()));
  const bool depthwise = dk->dimensions()[2] == 1 && s.channels > 1;
  if (depthwise) {
    const int blocks = (s.channels + lanes - 1) / lanes;
    const long size = taps * (long)lanes;
    std::unique_ptr<float[]> sums(new float[groups * blocks * size]());
    parallel(pool, groups * blocks, [&](int task) {
      int group = task / blocks, first = task % blocks * lanes, count = std::min(lanes, s.channels - first);
      Shape one = s;
      one.height = s.out_height + (s.kernel_h - 1) * s.rate_h;
      one.width = s.out_width + (s.kernel_w - 1) * s.rate_w;
      float* unfolded = scratch(0, one.height * (long)one.width * lanes);
      for (int n = batch * group / groups; n < batch * (group + 1) / groups; ++n) {
        unfold(one, x.typed_data() + n * image, s.height, s.width, s.channels, first, count, lanes, unfolded);
        const float* g = dy.typed_data() + n * pixels * s.channels + first;
        long pixel = s.channels;
        if (count < lanes) {
          float* some = scratch(1, pixels * lanes);
          copy(g, pixel, some, lanes, pixels, count);
          g = some, pixel = lanes;
        }
        kernels.depthwise_kernel_gradient(one, unfolded, g, pixel, sums.get() + task * size);
      }
    });
    for (int t = 0; t < taps; ++t)
      for (int c = 0; c < s.channels; ++c) {
        float sum = 0;
        for (int group = 0; group < groups; ++group)
          sum += sums[(group * blocks + c / lanes) * size + t * lanes + c % lanes];
        dk->typed_data()[t * (long)s.channels + c] = sum;
      }
    return ffi::Error::Success();
  }
  s.padded = whole(s.features, lanes);
  const long rows = taps * (long)s.channels, size = rows * s.padded;
  std::unique_ptr<float[]> sums(new float[groups * size]());
  parallel(pool, groups, [&](int group) {
    for (int n = batch * group / groups; n < batch * (group + 1) / groups; ++n) {
      const float* g = dy.typed_data() + n * pixels * s.features;
      if (s.padded != s.features) {
        float* wider = scratch(0, pixels * s.padded);
        copy(g, s.features, wider, s.padded, pixels, s.features);
        g = wider;
      }
      kernels.dense_kernel_gradient(s, x.typed_data() + n * image, g, sums.get() + group * size);
    }
  });
  for (long row = 0; row < rows; ++row)
    for (int f = 0; f < s.features; ++f) {
      float sum = 0;
      for (int group = 0; group < groups; ++group) sum += sums[group * size + row * s.padded + f];
      dk->typed_data()[row * s.features + f] = sum;
    }
  return ffi::Error::Success();
}

}  // namespace
}  // namespace hdc

#define HDC_HANDLER(symbol, function)                    \
  XLA_FFI_DEFINE_HANDLER_SYMBOL(symbol, function,        \
                                ffi::Ffi::Bind()         \
                                    .Ctx<ffi::ThreadPool>() \
                                    .Arg<Buffer>()       \
                                    .Arg<Buffer>()       \
                                    .Ret<Buffer>()       \
                                    .Attr<int64_t>("rate_h") \
                                    .Attr<int64_t>("rate_w") \
                                    .Attr<int64_t>("top") \
                                    .Attr<int64_t>("left"))

HDC_HANDLER(hdc_forward, hdc::forward);
HDC_HANDLER(hdc_input_gradient, hdc::input_gradient);
HDC_HANDLER(hdc_kernel_gradient, hdc::kernel_gradient);

extern "C" const char* hdc_instruction_set() { return hdc::best().name; }
