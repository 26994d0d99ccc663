// One vector of the channels of a depthwise convolution, one image at a time.
#pragma once

#include "shapes.h"

namespace hdc {

// Slots 0 to 3 of the thread's scratch memory are in use.
class Channels {
 public:
  // `backs` is `backwards(s, s.channels)`.
  Channels(const Shape& s, const std::vector<Back>& backs, const float* w, long features, int first)
      : s_(s), backs_(backs), first_(first), lanes_(best().lanes), count_(std::min(lanes_, s.channels - first)) {
    const long taps = s.kernel_h * (long)s.kernel_w;
    weights_ = scratch(0, 2 * taps * lanes_), turned_ = weights_ + taps * lanes_;
    copy(w + first, features, weights_, lanes_, taps, count_);
    float* turned = turned_;
    for (const Back& back : backs_)
      for (int tap : back.taps) std::memcpy(turned, weights_ + tap * lanes_, lanes_ * sizeof(float)), turned += lanes_;
  }

  int count() const { return count_; }

  // Takes the image that the following calls are about.
  void take(const float* image) { unfolded_ = unfold(s_, image + first_, s_.channels, scratch(1, area(s_))); }

  // To a map of `pixel` floats a pixel.
  void forward(const float* bias, bool relu, float* y, long pixel) const {
    Shape s = s_;
    s.out_pixel = pixel, s.out_line = s.out_width * pixel;
    write(s, unfolded_, weights_, bias, relu, y);
  }

  // dy lies one vector after another.
  void kernel_gradient(const float* dy, float* dk) const {
    best().depthwise_kernel_gradient(spread(s_), unfolded_, dy, lanes_, dk);
  }

  // The gradient by an image, of which all channels lie at dx.
  void input_gradient(const float* dy, float* dx) const {
    const float* turned = turned_;
    for (const Back& back : backs_) {
      const Shape& s = back.shape;
      if (back.taps.empty()) {
        for (int h = 0; h < s.out_height; ++h)
          for (int w = 0; w < s.out_width; ++w)
            std::fill_n(dx + back.dx + first_ + h * s.out_line + w * s.out_pixel, count_, 0.0f);
        continue;
      }
      const float* image = unfold(s, dy, lanes_, scratch(2, area(s)));
      write(s, image, turned, nullptr, false, dx + back.dx + first_);
      turned += back.taps.size() * lanes_;
    }
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

  // The real ones of these channels to a map that lies as the shape says.
  void write(const Shape& s, const float* image, const float* w, const float* bias, bool relu, float* y) const {
    if (count_ == lanes_) return best().depthwise(spread(s), image, w, bias, relu, y);
    Shape alone = spread(s);
    alone.out_pixel = lanes_, alone.out_line = s.out_width * (long)lanes_;
    float* all = scratch(3, s.out_height * alone.out_line);
    best().depthwise(alone, image, w, bias, relu, all);
    for (int h = 0; h < s.out_height; ++h)
      for (int i = 0; i < s.out_width; ++i, all += lanes_)
        std::memcpy(y + h * s.out_line + i * s.out_pixel, all, count_ * sizeof(float));
  }

  const Shape s_;
  const std::vector<Back>& backs_;
  const int first_, lanes_, count_;
  float *weights_, *turned_;
  const float* unfolded_ = nullptr;
};

}  // namespace hdc
