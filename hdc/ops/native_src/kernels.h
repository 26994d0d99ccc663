// What XLA's calls compute with. All arrays are float, in the order height, width, channels.
#pragma once

// Of the instruction set that this is compiled for: LANES, the floats in a vector; WIDE, the vectors of output channels
// at a time; PIXELS_1 to 4, the outputs at a time for so many vectors. Sizes are such that accumulators, weights and one
// value fit the vector registers, and so are SUMS, the sums that the kernel gradient of few channels takes at a time.
// DEEP outputs of a depthwise convolution are taken at a time.
#if defined(__AVX512F__)
#define LANES 16
#define WIDE 4
#define PIXELS_1 14
#define PIXELS_2 12
#define PIXELS_3 8
#define PIXELS_4 6
#define DEEP 4
#define SUMS 27
#elif defined(__AVX2__)
#define LANES 8
#define WIDE 2
#define PIXELS_1 10
#define PIXELS_2 6
#define DEEP 2
#define SUMS 12
#else
#define LANES 4
#define WIDE 2
#define PIXELS_1 6
#define PIXELS_2 4
#define DEEP 2
#define SUMS 12
#endif

namespace hdc {

struct Shape {
  int height, width, channels;  // of the image
  long pixel;                   // floats from one pixel of the image to the next
  int out_height, out_width, features, padded;  // padded: features, up to whole vectors
  long out_pixel, out_line;  // floats from one output to the next, and to the one below
  int kernel_h, kernel_w, rate_h, rate_w, top, left, stride_h, stride_w;
};

struct Windows {
  int height, width, channels;  // of the image
  int out_height, out_width, rows, columns, stride_h, stride_w, top, left;
};

struct Norm {  // per channel
  int channels;
  bool relu;
  const float *mean, *factor, *bias, *slope;
};

constexpr int kTile = 3;     // outputs of a Winograd tile, per axis
constexpr int kPiece = 128;  // its channels at a time, at most

// The outputs of one tile, `rate` pixels apart, and the inputs they see: pixel (h, w) is the first of these, and may lie
// off the image; so many rows and columns of outputs are on it.
struct Tile {
  int image, h, w, rows, columns;
  bool inside;  // all inputs lie on the image, and all outputs
};

// A Winograd convolution, and how it is cut: tiles and channels at a time.
struct Winograd {
  int height, width, rate, channels, features;  // channels and features: whole vectors, at most 64 or multiples of it
  int tiles, piece;
  int block() const { return features < 64 ? features : 64; }  // features of a block
  int blocks() const { return features / block(); }
  // Floats from one matrix of a kernel, of its inputs or of its products to the next: not a power of two, which would put
  // them all into one set of the cache.
  long u_step() const { return channels * (long)block() + 16; }
  long v_step() const { return tiles * (long)piece + 16; }
  long m_step() const { return tiles * (long)block() + 16; }
  long work() const { return (kTile + 2) * (kTile + 2) * (v_step() + m_step()); }  // floats of memory
  long kernel() const { return blocks() * (kTile + 2) * (kTile + 2) * u_step(); }  // floats of a transformed kernel
};

namespace kernels {

// One image, or where `add` is set the sum with what is at y; w is [kernel_h, kernel_w, channels, padded], bias
// [padded] or null.
void dense(const Shape&, const float* image, const float* w, const float* bias, bool add, bool relu, float* y);
// Adds to dk, [kernel_h, kernel_w, channels, padded], what so many images and gradients give, which lie `image` and
// `dy` floats apart. Vectors are read whole from dy.
void dense_kernel_gradient(const Shape&, const float* image, const float* dy, float* dk, int images,
                           long next_image, long next_dy);
// The same, faster, where an image has at most 4 channels and its padding is written out: of dy where y, which lies
// as dy does, is positive, or all of it where y is null, its sum over the pixels added to db, [padded], if that is
// not null.
void few_channels_kernel_gradient(const Shape&, const float* image, const float* y, const float* dy, float* dk,
                                  float* db);
// Of an image's first `features` channels, in whole vectors; w and dk are [kernel_h, kernel_w, padded], bias [features]
// or null; dk is added to.
void depthwise(const Shape&, const float* image, const float* w, const float* bias, bool relu, float* y);
void depthwise_kernel_gradient(const Shape&, const float* image, const float* dy, float* dk);
// What reaches the convolution: dy where y is positive, or all of it where y is null, as [pixels, padded],
// filled with zeros; its sum over the pixels is added to db, [padded], if that is not null.
// y and dy have `pixel` floats from one pixel to the next.
void before_relu(const float* y, const float* dy, long pixel, long pixels, int features, int padded, float* g,
                 float* db);
// Maxima of the windows of an image, [out_height, out_width, channels].
void max_pool(const Windows&, const float* x, float* y);
// To the first of the largest in every window: written, or added where windows share pixels.
void max_pool_gradient(const Windows&, const float* x, const float* dy, float* dx);
// Of pixels minus `shift`, all [pixels, channels]: their sums and sums of squares, added to [channels] each.
void moments(const float* x, const float* shift, long pixels, int channels, float* sums, float* squares);
// (x - mean) * factor + bias, and a residual added, if that is not null; ReLU.
void normalise(const Norm&, const float* x, const float* residual, long pixels, float* y);
// Of dy where y is positive, or all of it where y is null: the sums of it, and of its products with x - mean, added.
void norm_sums(const Norm&, const float* x, const float* y, const float* dy, long pixels, float* sums,
               float* products);
// dx = factor * (dy - bias - (x - mean) * slope), dy as above; dy to `residual`, if that is not null.
void norm_gradient(const Norm&, const float* x, const float* y, const float* dy, long pixels, float* dx,
                   float* residual);
// Of a kernel [3, 3, channels, features], or turned around, [3, 3, features, channels], to u.
void winograd_kernel(const Winograd&, const float* w, bool turned, float* u);
// So many tiles of images, after the first of which `last` lie that can be fetched ahead; `work` is memory for it.
void winograd(const Winograd&, const Tile*, int count, int last, const float* x, const float* u, const float* bias,
              bool relu, float* y, float* work);
// What they give for a kernel's gradient, added to du.
void winograd_gradient(const Winograd&, const Tile*, int count, int last, const float* x, const float* dy, float* du,
                       float* work);
void winograd_kernel_back(const Winograd&, const float* du, float* dk);

}  // namespace kernels
}  // namespace hdc
