// XLA custom calls: convolutions over all channels or over groups of them, with a bias and ReLU, and their gradients,
// on a CPU. An empty bias is none, and an empty gradient is not wanted.
//
// Work is divided over XLA's own threads: by images where a kernel is small, and all that is done to an image is then
// done while it is in the cache; by images and blocks of a kernel where that is large, and a block is then used while
// it is in the cache. How sums are divided depends on the shapes alone, so a result is the same to the bit from run to
// run, for any number of threads.

#include "shapes.h"

namespace hdc {
namespace {

constexpr int kBlock = 64;           // output channels
constexpr long kInCache = 1 << 16;   // floats of a kernel that stay near while an image is read
constexpr long kLarge = 1 << 17;     // floats of a large kernel

// How a kernel is cut: the outputs of each group in blocks, its inputs in pieces.
struct Cut {
  int groups, inputs, outputs;  // inputs and outputs of one group
  int taps, piece, width;       // a piece's inputs; floats from one weight of a block to that of the next input

  int blocks() const { return (outputs + kBlock - 1) / kBlock; }
  int all_blocks() const { return groups * blocks(); }
  int count(int block) const { return std::min(kBlock, outputs - block % blocks() * kBlock); }  // its outputs
  int group(int block) const { return block / blocks(); }
  int first(int block) const { return group(block) * outputs + block % blocks() * kBlock; }  // its first output
  long size() const { return taps * (long)inputs * width; }  // floats of a block
  bool large() const { return all_blocks() * size() >= kLarge; }
};

Cut cut(int groups, int inputs, int outputs, int taps) {
  const int width = std::min(kBlock, whole(outputs));
  const bool stays = taps * (long)inputs * width <= kInCache;
  return {groups, inputs, outputs, taps, stays ? inputs : std::min(inputs, kBlock), width};
}

// The same taps back to the inputs, whose pieces are the blocks of the outputs.
Cut turned(const Cut& k, int taps) {
  return {k.groups, k.outputs, k.inputs, taps, std::min(k.outputs, kBlock), std::min(kBlock, whole(k.inputs))};
}

// These taps of a kernel [taps, inputs, all outputs], so cut: for each block and piece, [taps, inputs, width]. For a
// turned cut the kernel's inputs are its outputs.
Floats packed(ffi::ThreadPool& pool, const Cut& k, const float* w, const std::vector<int>& taps, bool is_turned) {
  Floats out(new float[k.all_blocks() * k.size()]);
  const long row = k.groups * (long)(is_turned ? k.inputs : k.outputs);
  parallel(pool, k.all_blocks(), [&](int block) {
    float* to = out.get() + block * k.size();
    const int count = k.count(block), first = block % k.blocks() * kBlock, group = k.group(block);
    for (int from = 0; from < k.inputs; from += k.piece) {
      const int some = std::min(k.piece, k.inputs - from);
      for (int tap : taps) {
        if (is_turned) {
          const float* one = w + (tap * (long)k.outputs + first) * row + group * k.inputs + from;
          for (int o = 0; o < count; ++o, one += row)
            for (int i = 0; i < some; ++i) to[i * (long)k.width + o] = one[i];
          for (int i = 0; i < some; ++i) std::fill(to + i * k.width + count, to + (i + 1) * k.width, 0.0f);
        } else {
          copy(w + (tap * (long)k.inputs + from) * row + k.first(block), row, to, k.width, some, count);
        }
        to += some * k.width;
      }
    }
  });
  return out;
}

// One block of the outputs of an image: `piece(p)` is the p-th piece of its inputs.
template <typename F>
void convolve(const Cut& k, int block, const float* weights, const F& piece, const float* bias, bool relu, float* y) {
  weights += block * k.size();
  for (int p = 0, from = 0; from < k.inputs; ++p, from += k.piece) {
    Image in = piece(p);
    in.shape.channels = std::min(k.piece, k.inputs - from), in.shape.features = k.count(block);
    in.shape.padded = k.width;
    kernels::dense(in.shape, in.data, weights, from ? nullptr : bias, from > 0, relu && from + k.piece >= k.inputs, y);
    weights += k.taps * (long)in.shape.channels * k.width;
  }
}

// So few channels are quicker with the padding written out than tap by tap.
bool has_few_channels(const Shape& s, const Cut& k) { return k.groups == 1 && s.channels <= 4 && k.taps > 1; }

Cut cut_of(const Buffer& x, const Buffer& kernel) {
  auto k = kernel.dimensions();
  const int groups = x.dimensions()[3] / k[2];
  return cut(groups, k[2], k[3] / groups, k[0] * k[1]);
}

ffi::Error forward(ffi::ThreadPool pool, Buffer x, Buffer kernel, Buffer bias, Result y, HDC_NUMBERS) {
  const Shape s = shape_of(x, kernel, *y, HDC_CALL);
  const Cut k = cut_of(x, kernel);
  const int batch = x.dimensions()[0], blocks = k.all_blocks();
  const long image = s.height * (long)s.width * s.channels, out = s.out_height * s.out_line;
  Floats own_weights, own_bias;
  const float *w = kernel.typed_data(), *b = bias.element_count() ? bias.typed_data() : nullptr;
  if (blocks > 1 || k.piece < k.inputs || k.width > k.outputs) {
    std::vector<int> taps(k.taps);
    std::iota(taps.begin(), taps.end(), 0);
    own_weights = packed(pool, k, w, taps, false), w = own_weights.get();
  }
  if (b) {  // read in whole vectors, from the first output of any block on
    own_bias.reset(new float[s.features + kBlock]());
    std::memcpy(own_bias.get(), b, s.features * sizeof(float)), b = own_bias.get();
  }
  const bool few = has_few_channels(s, k);
  Shape reached = spread(s);
  reached.top = reached.left = 0;
  const int at_once = k.large() ? 1 : blocks;
  parallel(pool, batch * (blocks / at_once), [&](int task) {
    const int n = task % batch, from = task / batch * at_once;
    const float* one = x.typed_data() + n * image;
    const Image in = few ? Image{reached, padded(s, one, 0)} : widened(s, one, 0);
    for (int block = from; block < from + at_once; ++block) {
      auto piece = [&](int p) { return Image{in.shape, in.data + k.group(block) * k.inputs + p * k.piece}; };
      const int first = k.first(block);
      convolve(k, block, w, piece, b ? b + first : nullptr, relu, y->typed_data() + n * out + first);
    }
  });
  return ffi::Error::Success();
}

// What reaches a convolution from its outputs, dy where y is positive, block by block: in maps of their own, or as dy
// has them where nothing needs to be done to it.
class Gradient {
 public:
  Gradient(const Shape& s, const Cut& k, const float* y, const float* dy, bool sums)
      : k_(k), y_(y), dy_(dy), features_(s.features), pixels_(s.out_height * (long)s.out_width),
        copied_(y || sums || k.all_blocks() > 1 || k.width > k.outputs) {}

  bool copied() const { return copied_; }
  long pixel() const { return copied_ ? k_.width : features_; }  // floats from one pixel to the next
  long image() const { return copied_ ? k_.all_blocks() * pixels_ * k_.width : pixels_ * features_; }

  // The blocks of image n, in `own` if they are copied; their sums over the pixels are added to db if it is not null.
  const float* of(int n, float* own, float* db) const {
    const float *y = y_ ? y_ + n * pixels_ * features_ : nullptr, *dy = dy_ + n * pixels_ * features_;
    if (!copied_) return dy;
    for (int block = 0; block < k_.all_blocks(); ++block) {
      const int first = k_.first(block);
      kernels::before_relu(y ? y + first : nullptr, dy + first, features_, pixels_, k_.count(block), k_.width,
                           own + block * pixels_ * k_.width, db ? db + block * k_.width : nullptr);
    }
    return own;
  }

  long block(int number) const { return number * pixels_ * k_.width; }  // where it begins

 private:
  const Cut& k_;
  const float *y_, *dy_;
  const int features_;
  const long pixels_;
  const bool copied_;
};

// The way from dy back to an image, for one phase of its pixels.
struct Return {
  Back back;
  Cut cut;
  Floats weights;
};

std::vector<Return> returns(ffi::ThreadPool& pool, const Shape& s, const Cut& k, const Gradient& g, const float* w) {
  std::vector<Return> all;
  for (Back& back : backwards(s, s.channels)) {
    if (back.taps.empty()) continue;
    back.shape.pixel = g.pixel();
    const Cut own = turned(k, back.taps.size());
    all.push_back({back, own, packed(pool, own, w, back.taps, true)});
  }
  return all;
}

// One block of the channels of dx, from the gradient's blocks of one image.
void go_back(const Return& way, int block, const Gradient& g, const float* blocks, float* dx) {
  const Cut& k = way.cut;
  const int pieces = (k.inputs + k.piece - 1) / k.piece;
  auto piece = [&](int p) {
    return widened(way.back.shape, blocks + g.block(k.group(block) * pieces + p), 1);
  };
  convolve(k, block, way.weights.get(), piece, nullptr, false, dx + way.back.dx + k.first(block));
}

ffi::Error backward(ffi::ThreadPool pool, Buffer x, Buffer kernel, Buffer y, Buffer dy, Result dx, Result dk,
                    Result db, HDC_NUMBERS) {
  const Shape s = shape_of(x, kernel, dy, HDC_CALL);
  const Cut k = cut_of(x, kernel);
  const int batch = x.dimensions()[0], blocks = k.all_blocks();
  const long image = s.height * (long)s.width * s.channels, pixels = s.out_height * (long)s.out_width;
  const bool wants_dx = dx->element_count(), wants_dk = dk->element_count(), wants_db = db->element_count();
  const bool few = has_few_channels(s, k);
  // Of few channels without their gradient, as in a first layer, nothing needs dy before ReLU but the sums.
  const bool in_one_pass = few && wants_dk && !wants_dx && s.features == s.padded;
  const Gradient g(s, k, relu ? y.typed_data() : nullptr, dy.typed_data(), wants_db);
  Shape in = s;  // for the kernel's gradient: of one group, dy as g has it
  in.channels = k.inputs, in.padded = k.width, in.out_pixel = g.pixel(), in.out_line = s.out_width * g.pixel();
  std::vector<Return> ways;
  if (wants_dx) {
    ways = returns(pool, s, k, g, kernel.typed_data());
    if (leaves_zeros(backwards(s, s.channels))) std::memset(dx->typed_data(), 0, dx->size_bytes());
  }
  const long rows = k.taps * (long)k.inputs, size = blocks * (k.size() + k.width);  // all blocks, and db's
  const bool large = k.large();
  const int parts = large ? batch : parts_of(batch);
  const long part_size = large ? blocks * (long)k.width : size, bias_at = part_size - blocks * (long)k.width;
  Floats sums(new float[parts * part_size]()), copies(large && g.copied() ? new float[batch * g.image()] : nullptr);
  parallel(pool, parts, [&](int part) {
    float *sum = sums.get() + part * part_size, *bias_sum = wants_db ? sum + bias_at : nullptr;
    if (large) return void(g.of(part, copies.get() + part * g.image(), bias_sum));
    for (int n = batch * (long)part / parts; n < batch * (part + 1L) / parts; ++n) {
      const float* one = x.typed_data() + n * image;
      if (in_one_pass) {
        Shape all = spread(s);
        const float* filled = padded(s, one, 1);
        all.padded = k.width;
        for (int block = 0; block < blocks; ++block) {
          const long at = n * pixels * s.features + k.first(block);
          all.features = k.count(block);
          kernels::few_channels_kernel_gradient(all, filled, relu ? y.typed_data() + at : nullptr, dy.typed_data() + at,
                                                sum + block * k.size(), bias_sum ? bias_sum + block * k.width : nullptr);
        }
        continue;
      }
      const float* own = g.of(n, g.copied() ? scratch(0, g.image()) : nullptr, bias_sum);
      const float* filled = wants_dk && few ? padded(s, one, 1) : nullptr;
      for (int block = 0; block < blocks && wants_dk; ++block) {
        float* to = sum + block * k.size();
        Shape part = in;
        part.features = k.count(block);
        if (few) kernels::few_channels_kernel_gradient(spread(part), filled, nullptr, own + g.block(block), to, nullptr);
        else kernels::dense_kernel_gradient(part, one + k.group(block) * k.inputs, own + g.block(block), to, 1, 0, 0);
      }
      for (const Return& way : ways)
        for (int block = 0; block < way.cut.all_blocks(); ++block)
          go_back(way, block, g, own, dx->typed_data() + n * image);
    }
  });
  const float* all = g.copied() ? copies.get() : dy.typed_data();
  if (large && wants_dk)
    parallel(pool, blocks * k.taps, [&](int task) {  // one tap of a block, over all images
      const int block = task / k.taps, tap = task % k.taps;
      Shape one = in;
      one.features = k.count(block), one.kernel_h = one.kernel_w = 1;
      one.top -= tap / s.kernel_w * s.rate_h, one.left -= tap % s.kernel_w * s.rate_w;
      float* own = scratch(0, k.inputs * (long)k.width);
      std::fill_n(own, k.inputs * (long)k.width, 0.0f);
      kernels::dense_kernel_gradient(one, x.typed_data() + k.group(block) * k.inputs, all + g.block(block), own, batch,
                                     image, g.image());
      float* to = dk->typed_data() + tap * (long)k.inputs * s.features + k.first(block);
      for (int c = 0; c < k.inputs; ++c)
        std::memcpy(to + c * (long)s.features, own + c * (long)k.width, one.features * sizeof(float));
    });
  if (large)
    for (const Return& way : ways)
      parallel(pool, way.cut.all_blocks() * batch, [&](int task) {
        const int n = task % batch;
        go_back(way, task / batch, g, all + n * g.image(), dx->typed_data() + n * image);
      });
  for (int block = 0; block < blocks; ++block) {
    const int first = k.first(block), count = k.count(block);
    if (wants_dk && !large)
      add_up(sums.get() + block * k.size(), parts, size, rows, k.width, count, dk->typed_data() + first, s.features);
    if (wants_db)
      add_up(sums.get() + bias_at + block * k.width, parts, part_size, 1, k.width, count, db->typed_data() + first,
             count);
  }
  return ffi::Error::Success();
}

}  // namespace
}  // namespace hdc

HDC_DEFINE(hdc_forward, hdc::forward, HDC_BUFFERS3, HDC_RESULT);
HDC_DEFINE(hdc_backward, hdc::backward, HDC_BUFFERS3 HDC_BUFFER, HDC_RESULT HDC_RESULT HDC_RESULT);
