// What every instruction set provides. All arrays are float, in the order height, width, channels.
#pragma once

namespace hdc {

struct Shape {
  int height, width, channels;                  // of the image
  int out_height, out_width, features, padded;  // padded: features, up to whole vectors
  int kernel_h, kernel_w, rate_h, rate_w, top, left;
};

struct Kernels {
  const char* name;
  int lanes;  // floats in a vector
  // One image [height, width, channels] to [out_height, out_width, features]; w is
  // [kernel_h, kernel_w, channels, padded].
  void (*dense)(const Shape&, const float* image, const float* w, float* y);
  // Adds to dk, [kernel_h, kernel_w, channels, padded]; dy is [out_height, out_width, padded].
  void (*dense_kernel_gradient)(const Shape&, const float* image, const float* dy, float* dk);
  // One vector of channels of an image with its padding written out; y has `pixel` floats from one pixel to
  // the next. w and dk are [kernel_h, kernel_w, lanes]; dk is added to.
  void (*depthwise)(const Shape&, const float* image, const float* w, float* y, long pixel);
  void (*depthwise_kernel_gradient)(const Shape&, const float* image, const float* dy, long pixel, float* dk);
};

extern const Kernels portable;
#if defined(__x86_64__)
extern const Kernels avx2, avx512;
#endif

}  // namespace hdc
