// XLA custom calls: convolutions of stride 1, dense, depthwise or depthwise separable, with a bias and ReLU, and
// their gradients, on a CPU. An empty bias is none, and an empty gradient is not wanted.
//
// Work is divided over XLA's own threads, by images. The parts in which a kernel's gradient is summed depend
// on the shapes alone, so a result is the same to the bit from run to run.

#include "parallel.h"

namespace ffi = xla::ffi;
using Buffer = ffi::Buffer<ffi::F32>;
using Result = ffi::ResultBuffer<ffi::F32>;
using Floats = std::unique_ptr<float[]>;

namespace hdc {
namespace {

int whole(int features) {
  const int lanes = best().lanes;
  return (features + lanes - 1) / lanes * lanes;
}

// Rows of `count` floats, `from` floats apart, to rows of `to` floats, what is left filled with zeros.
void copy(const float* x, long from, float* y, long to, long rows, int count) {
  for (long i = 0; i < rows; ++i) {
    std::memcpy(y + i * to, x + i * from, count * sizeof(float));
    std::memset(y + i * to + count, 0, (to - count) * sizeof(float));
  }
}

// Rows of `count` floats as rows of `to` floats: themselves where that is the same, else a copy that is kept.
const float* widened(const float* x, long rows, int count, int to, Floats& kept) {
  if (count == to || rows * count == 0) return x;
  kept.reset(new float[rows * to]);
  copy(x, count, kept.get(), to, rows, count);
  return kept.get();
}

// A kernel [taps, channels, features] turned around, with its channels swapped: [taps, features, padded].
Floats turned(const float* w, int taps, int channels, int features, int padded) {
  Floats out(new float[taps * (long)features * padded]());
  for (int t = 0; t < taps; ++t)
    for (int c = 0; c < channels; ++c)
      for (int f = 0; f < features; ++f)
        out[(t * (long)features + f) * padded + c] = w[((taps - 1 - t) * (long)channels + c) * features + f];
  return out;
}

// Sums over the batch are taken in so many parts: enough for the threads, and few enough for the memory.
int parts_of(int batch, long size) { return std::min(batch, size <= 1 << 18 ? 16 : 8); }

// Adds up `parts` arrays, each of rows of `from` floats, to rows of `count` floats.
void add_up(const float* sums, int parts, long size, long rows, int from, int count, float* out) {
  std::fill(out, out + rows * count, 0.0f);
  for (long row = 0; row < rows; ++row, sums += from, out += count)
    for (int part = 0; part < parts; ++part)
      for (int f = 0; f < count; ++f) out[f] += sums[part * size + f];
}

struct Call {
  int64_t rate_h, rate_w, top, left, relu;
};

Shape shape_of(const Buffer& image, const Buffer& kernel, int out_height, int out_width, const Call& call) {
  auto x = image.dimensions(), k = kernel.dimensions();
  return Shape{int(x[1]), int(x[2]), int(x[3]), long(x[3]), out_height, out_width, int(k[3]), whole(int(k[3])),
               int(k[0]), int(k[1]), int(call.rate_h), int(call.rate_w), int(call.top), int(call.left)};
}

Shape shape_of(const Buffer& image, const Buffer& kernel, const Buffer& out, const Call& call) {
  return shape_of(image, kernel, int(out.dimensions()[1]), int(out.dimensions()[2]), call);
}

// The same taps from the outputs back to the image, where dx is the output and dy the image.
Shape backwards(const Shape& s) {
  return Shape{s.out_height, s.out_width, s.features, long(s.padded), s.height, s.width, s.channels,
               whole(s.channels), s.kernel_h, s.kernel_w, s.rate_h, s.rate_w,
               (s.kernel_h - 1) * s.rate_h - s.top, (s.kernel_w - 1) * s.rate_w - s.left};
}

// A 1x1 convolution of so many pixels.
Shape pointwise(long pixels, int channels, long pixel, int features, int padded) {
  return Shape{1, int(pixels), channels, pixel, 1, int(pixels), features, padded, 1, 1, 1, 1, 0, 0};
}

// An image with all that the taps of its outputs reach.
Shape spread(Shape s) {
  s.height = s.out_height + (s.kernel_h - 1) * s.rate_h, s.width = s.out_width + (s.kernel_w - 1) * s.rate_w;
  return s;
}

// So few channels are quicker with the padding written out than tap by tap.
bool has_few_channels(const Shape& s) { return s.channels <= 4 && s.kernel_h * s.kernel_w > 1; }

// `count` floats at `from` of a line of `total`, zeros beside them.
void among_zeros(const float* x, long from, long count, long total, float* line) {
  std::fill(line, line + from, 0.0f);
  std::memcpy(line + from, x, count * sizeof(float));
  std::fill(line + from + count, line + total, 0.0f);
}

// An image of few channels with its padding written out, in `slot`.
const float* padded(const Shape& s, const float* image, int slot) {
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

// An image with the padding beside it written out, in `slot`, where it is little: rows are then computed in whole
// pieces, where outputs at their ends have other taps. An image as it is, where it is not.
Image widened(const Shape& s, const float* image, int slot) {
  long outside = 0;
  for (int k = 0; k < s.kernel_w; ++k) {
    const int first = k * s.rate_w - s.left;  // the image's column of this tap of the first output
    outside += std::min(s.out_width, std::max(0, -first)) +
               std::min(s.out_width, std::max(0, first + s.out_width - s.width));
  }
  if (outside == 0 || outside * 10 > s.out_width * (long)s.kernel_w) return {s, image};
  Shape wide = s;
  wide.width = spread(s).width, wide.left = 0;
  const long line = wide.width * s.pixel, row = s.width * s.pixel;
  float* out = scratch(slot, s.height * line);
  const int w0 = std::clamp(s.left, 0, wide.width), w1 = std::clamp(s.left + s.width, w0, wide.width);
  for (int h = 0; h < s.height; ++h, out += line, image += row)
    among_zeros(image + (w0 - s.left) * s.pixel, w0 * s.pixel, (w1 - w0) * s.pixel, line, out);
  return {wide, out - s.height * line};
}

// One vector of the channels of a depthwise convolution, `count` of them real, for one image at a time.
// Slots 0 to 3 of the thread's scratch memory are in use.
class Channels {
 public:
  Channels(const Shape& s, const float* w, long features, int first)
      : s_(s), first_(first), lanes_(best().lanes), count_(std::min(lanes_, s.channels - first)) {
    const long taps = s.kernel_h * s.kernel_w;
    weights_ = scratch(0, 2 * taps * lanes_), turned_ = weights_ + taps * lanes_;
    copy(w + first, features, weights_, lanes_, taps, count_);
    for (long t = 0; t < taps; ++t)
      std::memcpy(turned_ + t * lanes_, weights_ + (taps - 1 - t) * lanes_, lanes_ * sizeof(float));
  }

  int count() const { return count_; }

  // Takes the image that the following calls are about.
  void take(const float* image) { unfolded_ = unfold(s_, image + first_, s_.channels, scratch(1, area(s_))); }

  void forward(const float* bias, bool relu, float* y, long pixel) const {
    write(s_, unfolded_, weights_, bias, relu, y, pixel);
  }

  void kernel_gradient(const float* dy, float* dk) const {
    best().depthwise_kernel_gradient(spread(s_), unfolded_, dy, lanes_, dk);
  }

  // Of dy, [pixels, lanes], to the image dx.
  void input_gradient(const float* dy, float* dx) const {
    const Shape back = backwards(s_);
    const float* image = unfold(back, dy, lanes_, scratch(2, area(back)));
    write(back, image, turned_, nullptr, false, dx + first_, s_.channels);
  }

 private:
  long area(const Shape& s) const { return spread(s).height * (long)spread(s).width * lanes_; }

  // These channels of an image, of `pixel` floats a pixel, with its padding written out.
  const float* unfold(const Shape& s, const float* image, long pixel, float* out) const {
    const Shape all = spread(s);
    const int w0 = std::clamp(s.left, 0, all.width), w1 = std::clamp(s.left + s.width, w0, all.width);
    for (int row = 0; row < all.height; ++row) {
      float* line = out + row * (long)all.width * lanes_;
      const int from = row - s.top;
      if (from < 0 || from >= s.height || w0 == w1) {
        std::memset(line, 0, all.width * (long)lanes_ * sizeof(float));
        continue;
      }
      std::memset(line, 0, w0 * (long)lanes_ * sizeof(float));
      const float* x = image + (from * (long)s.width + w0 - s.left) * pixel;
      if (count_ == 16 && lanes_ == 16)  // of a size that the compiler knows
        for (int i = w0; i < w1; ++i, x += pixel) {
          __builtin_prefetch(x + s.width * pixel);  // the next row
          std::memcpy(line + i * 16L, x, 64);
        }
      else
        copy(x, pixel, line + w0 * (long)lanes_, lanes_, w1 - w0, count_);
      std::memset(line + w1 * (long)lanes_, 0, (all.width - w1) * (long)lanes_ * sizeof(float));
    }
    return out;
  }

  // The real ones of these channels to a map of `pixel` floats a pixel.
  void write(const Shape& s, const float* image, const float* w, const float* bias, bool relu, float* y,
             long pixel) const {
    if (count_ == lanes_) return best().depthwise(spread(s), image, w, bias, relu, y, pixel);
    const long pixels = s.out_height * (long)s.out_width;
    float* all = scratch(3, pixels * lanes_);
    best().depthwise(spread(s), image, w, bias, relu, all, lanes_);
    for (long i = 0; i < pixels; ++i) std::memcpy(y + i * pixel, all + i * lanes_, count_ * sizeof(float));
  }

  const Shape s_;
  const int first_, lanes_, count_;
  float *weights_, *turned_;
  const float* unfolded_ = nullptr;
};

bool is_depthwise(const Buffer& image, const Buffer& kernel) {
  return kernel.dimensions()[2] == 1 && image.dimensions()[3] > 1;
}

ffi::Error forward(ffi::ThreadPool pool, Buffer x, Buffer kernel, Buffer bias, Result y, int64_t rate_h,
                   int64_t rate_w, int64_t top, int64_t left, int64_t relu) {
  const Shape s = shape_of(x, kernel, *y, {rate_h, rate_w, top, left, relu});
  const Kernels& kernels = best();
  const int batch = x.dimensions()[0];
  const long image = s.height * (long)s.width * s.channels, out = s.out_height * (long)s.out_width * s.features;
  Floats wide_kernel, wide_bias;
  const float* b = bias.element_count() ? widened(bias.typed_data(), 1, s.features, s.padded, wide_bias) : nullptr;
  if (is_depthwise(x, kernel)) {
    const int lanes = kernels.lanes, blocks = s.padded / lanes;
    parallel(pool, batch * blocks, [&](int task) {
      const int n = task / blocks, first = task % blocks * lanes;
      Channels channels(s, kernel.typed_data(), s.features, first);
      channels.take(x.typed_data() + n * image);
      channels.forward(b ? b + first : nullptr, relu, y->typed_data() + n * out + first, s.features);
    });
    return ffi::Error::Success();
  }
  const long rows = s.kernel_h * s.kernel_w * (long)s.channels;
  const float* w = widened(kernel.typed_data(), rows, s.features, s.padded, wide_kernel);
  const bool few = has_few_channels(s);
  Shape reached = spread(s);
  reached.top = reached.left = 0;
  parallel(pool, batch, [&](int n) {
    const float* one = x.typed_data() + n * image;
    const Image in = few ? Image{reached, padded(s, one, 0)} : widened(s, one, 0);
    kernels.dense(in.shape, in.data, w, b, relu, y->typed_data() + n * out);
  });
  return ffi::Error::Success();
}

ffi::Error backward(ffi::ThreadPool pool, Buffer x, Buffer kernel, Buffer y, Buffer dy, Result dx, Result dk,
                    Result db, int64_t rate_h, int64_t rate_w, int64_t top, int64_t left, int64_t relu) {
  const Shape s = shape_of(x, kernel, dy, {rate_h, rate_w, top, left, relu}), back = backwards(s);
  const Kernels& kernels = best();
  const int batch = x.dimensions()[0], lanes = kernels.lanes, taps = s.kernel_h * s.kernel_w;
  const long image = s.height * (long)s.width * s.channels, pixels = s.out_height * (long)s.out_width;
  const bool wants_dx = dx->element_count(), wants_dk = dk->element_count(), wants_db = db->element_count();
  const bool depthwise = is_depthwise(x, kernel);
  const long rows = taps * (long)(depthwise ? 1 : s.channels), size = (rows + 1) * s.padded;  // the last is db
  const int parts = parts_of(batch, size);
  Floats sums(new float[parts * size]());
  // The gradient of one image before ReLU, `some` features from the first on.
  auto before_relu = [&](int n, int first, int some, int padded, float* bias_sum, float* out) {
    const long at = n * pixels * s.features + first;
    kernels.before_relu(relu ? y.typed_data() + at : nullptr, dy.typed_data() + at, s.features, pixels, some, padded,
                        out, wants_db ? bias_sum : nullptr);
  };
  if (depthwise) {
    const int blocks = s.padded / lanes;
    const long block = (taps + 1) * (long)lanes;
    parallel(pool, parts * blocks, [&](int task) {
      const int part = task / blocks, first = task % blocks * lanes;
      Channels channels(s, kernel.typed_data(), s.features, first);
      float* sum = sums.get() + task * block;
      float* g = scratch(4, pixels * lanes);
      for (int n = batch * (long)part / parts; n < batch * (part + 1L) / parts; ++n) {
        before_relu(n, first, channels.count(), lanes, sum + taps * (long)lanes, g);
        if (wants_dk) {
          channels.take(x.typed_data() + n * image);
          channels.kernel_gradient(g, sum);
        }
        if (wants_dx) channels.input_gradient(g, dx->typed_data() + n * image);
      }
    });
    for (int c = 0; c < s.features; ++c)
      for (int t = 0; t < taps + wants_db; ++t) {
        float sum = 0;
        for (int part = 0; part < parts; ++part)
          sum += sums[part * size + c / lanes * block + t * (long)lanes + c % lanes];
        if (t == taps) db->typed_data()[c] = sum;
        else if (wants_dk) dk->typed_data()[t * (long)s.features + c] = sum;
      }
    return ffi::Error::Success();
  }
  Floats turned_kernel;
  // Of few channels without their gradient, as in a first layer, nothing needs dy before ReLU but the sums.
  const bool few = has_few_channels(s), in_one_pass = few && wants_dk && !wants_dx && s.padded == s.features;
  if (wants_dx) turned_kernel = turned(kernel.typed_data(), taps, s.channels, s.features, back.padded);
  parallel(pool, parts, [&](int part) {
    float* sum = sums.get() + part * size;
    for (int n = batch * (long)part / parts; n < batch * (part + 1L) / parts; ++n) {
      const float *one = x.typed_data() + n * image, *g = dy.typed_data() + n * pixels * s.features;
      float* bias_sum = sum + rows * s.padded;
      if (in_one_pass) {
        kernels.few_channels_kernel_gradient(spread(s), padded(s, one, 1),
                                             relu ? y.typed_data() + n * pixels * s.features : nullptr, g, sum,
                                             wants_db ? bias_sum : nullptr);
        continue;
      }
      if (relu || wants_db || s.padded != s.features) {
        float* masked = scratch(0, pixels * s.padded);
        before_relu(n, 0, s.features, s.padded, bias_sum, masked);
        g = masked;
      }
      if (wants_dk && few)
        kernels.few_channels_kernel_gradient(spread(s), padded(s, one, 1), nullptr, g, sum, nullptr);
      else if (wants_dk) kernels.dense_kernel_gradient(s, one, g, sum);
      if (!wants_dx) continue;
      const Image in = widened(back, g, 1);
      kernels.dense(in.shape, in.data, turned_kernel.get(), nullptr, false, dx->typed_data() + n * image);
    }
  });
  if (wants_dk) add_up(sums.get(), parts, size, rows, s.padded, s.features, dk->typed_data());
  if (wants_db) add_up(sums.get() + rows * s.padded, parts, size, 1, s.padded, s.features, db->typed_data());
  return ffi::Error::Success();
}

// The depthwise convolution of an image stays in the cache, and is computed again for the gradients.

ffi::Error separable_forward(ffi::ThreadPool pool, Buffer x, Buffer depthwise, Buffer kernel, Buffer bias, Result y,
                             int64_t rate_h, int64_t rate_w, int64_t top, int64_t left, int64_t relu) {
  const Shape s = shape_of(x, depthwise, *y, {rate_h, rate_w, top, left, relu});
  const Kernels& kernels = best();
  const int batch = x.dimensions()[0], lanes = kernels.lanes, features = kernel.dimensions()[3];
  const long image = s.height * (long)s.width * s.channels, pixels = s.out_height * (long)s.out_width;
  const Shape point = pointwise(pixels, s.channels, s.padded, features, whole(features));
  Floats wide_kernel, wide_bias;
  const float* w = widened(kernel.typed_data(), s.channels, features, point.padded, wide_kernel);
  const float* b = bias.element_count() ? widened(bias.typed_data(), 1, features, point.padded, wide_bias) : nullptr;
  parallel(pool, batch, [&](int n) {
    float* maps = scratch(4, pixels * s.padded);
    for (int first = 0; first < s.channels; first += lanes) {
      Channels channels(s, depthwise.typed_data(), s.channels, first);
      channels.take(x.typed_data() + n * image);
      channels.forward(nullptr, false, maps + first, s.padded);
    }
    kernels.dense(point, maps, w, b, relu, y->typed_data() + n * pixels * features);
  });
  return ffi::Error::Success();
}

ffi::Error separable_backward(ffi::ThreadPool pool, Buffer x, Buffer depthwise, Buffer kernel, Buffer y, Buffer dy,
                              Result dx, Result d_depthwise, Result d_kernel, Result db, int64_t rate_h,
                              int64_t rate_w, int64_t top, int64_t left, int64_t relu) {
  const Shape s = shape_of(x, depthwise, dy, {rate_h, rate_w, top, left, relu});
  const Kernels& kernels = best();
  const int batch = x.dimensions()[0], lanes = kernels.lanes, features = kernel.dimensions()[3];
  const int padded = whole(features), taps = s.kernel_h * s.kernel_w, blocks = s.padded / lanes;
  const long image = s.height * (long)s.width * s.channels, pixels = s.out_height * (long)s.out_width;
  const bool wants_dx = dx->element_count(), wants_db = db->element_count();
  const bool wants_kernels = d_kernel->element_count();
  // One part's sums: of the pointwise kernel, of the bias, of each vector of the depthwise kernel.
  const long point_size = (s.channels + 1) * (long)padded, block = taps * (long)lanes;
  const long size = point_size + blocks * block;
  const int parts = parts_of(batch, size);
  Floats sums(new float[parts * size]());
  // For each vector of channels, the pointwise kernel backwards: [features, lanes].
  Floats back(new float[blocks * (long)features * lanes]());
  for (int c = 0; c < s.channels; ++c)
    for (int f = 0; f < features; ++f)
      back[(c / lanes * (long)features + f) * lanes + c % lanes] = kernel.typed_data()[c * (long)features + f];
  const Shape to_maps = pointwise(pixels, features, padded, lanes, lanes);
  parallel(pool, parts, [&](int part) {
    float* sum = sums.get() + part * size;
    float *g = scratch(4, pixels * padded), *maps = scratch(5, pixels * lanes);
    for (int n = batch * (long)part / parts; n < batch * (part + 1L) / parts; ++n) {
      const long at = n * pixels * features;
      kernels.before_relu(relu ? y.typed_data() + at : nullptr, dy.typed_data() + at, features, pixels, features,
                          padded, g, wants_db ? sum + s.channels * (long)padded : nullptr);
      for (int b = 0; b < blocks; ++b) {
        Channels channels(s, depthwise.typed_data(), s.channels, b * lanes);
        if (wants_kernels) {
          channels.take(x.typed_data() + n * image);
          channels.forward(nullptr, false, maps, lanes);
          kernels.dense_kernel_gradient(pointwise(pixels, channels.count(), lanes, features, padded), maps, g,
                                        sum + b * lanes * (long)padded);
        }
        kernels.dense(to_maps, g, back.get() + b * (long)features * lanes, nullptr, false, maps);
        if (wants_kernels) channels.kernel_gradient(maps, sum + point_size + b * block);
        if (wants_dx) channels.input_gradient(maps, dx->typed_data() + n * image);
      }
    }
  });
  if (wants_db) add_up(sums.get() + s.channels * (long)padded, parts, size, 1, padded, features, db->typed_data());
  if (!wants_kernels) return ffi::Error::Success();
  add_up(sums.get(), parts, size, s.channels, padded, features, d_kernel->typed_data());
  for (int t = 0; t < taps; ++t)
    for (int b = 0; b < blocks; ++b)
      add_up(sums.get() + point_size + b * block + t * lanes, parts, size, 1, lanes,
             std::min(lanes, s.channels - b * lanes), d_depthwise->typed_data() + t * (long)s.channels + b * lanes);
  return ffi::Error::Success();
}

}  // namespace
}  // namespace hdc

#define HDC_NUMBERS          \
  .Attr<int64_t>("rate_h")   \
      .Attr<int64_t>("rate_w") \
      .Attr<int64_t>("top")  \
      .Attr<int64_t>("left") \
      .Attr<int64_t>("relu")

#define HDC_CALL ffi::Ffi::Bind().Ctx<ffi::ThreadPool>()
#define HDC_ARGS3 .Arg<Buffer>().Arg<Buffer>().Arg<Buffer>()
#define HDC_RETS3 .Ret<Buffer>().Ret<Buffer>().Ret<Buffer>()

XLA_FFI_DEFINE_HANDLER_SYMBOL(hdc_forward, hdc::forward, HDC_CALL HDC_ARGS3.Ret<Buffer>() HDC_NUMBERS);
XLA_FFI_DEFINE_HANDLER_SYMBOL(hdc_backward, hdc::backward, HDC_CALL HDC_ARGS3.Arg<Buffer>() HDC_RETS3 HDC_NUMBERS);
XLA_FFI_DEFINE_HANDLER_SYMBOL(hdc_separable_forward, hdc::separable_forward,
                              HDC_CALL HDC_ARGS3.Arg<Buffer>().Ret<Buffer>() HDC_NUMBERS);
XLA_FFI_DEFINE_HANDLER_SYMBOL(hdc_separable_backward, hdc::separable_backward,
                              HDC_CALL HDC_ARGS3.Arg<Buffer>().Arg<Buffer>() HDC_RETS3.Ret<Buffer>() HDC_NUMBERS);

extern "C" const char* hdc_instruction_set() { return hdc::best().name; }
