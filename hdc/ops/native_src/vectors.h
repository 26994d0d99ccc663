// Vectors of LANES floats.
#pragma once

#include <algorithm>
#include <cstring>

#include "kernels.h"

// Arrays of vectors stay in registers only where every loop over them is unrolled before the compiler looks for such.
#define UNROLLED _Pragma("GCC unroll 32")
// A function whose innermost loop needs most registers: within another one it would get fewer, and read the rest from
// memory at every turn (up to a quarter more time).
#define ALONE __attribute__((noinline))

namespace hdc::kernels {

typedef float Vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

inline Vec load(const float* p) { return *reinterpret_cast<const Vec*>(p); }
inline void store(float* p, Vec v) { *reinterpret_cast<Vec*>(p) = v; }
inline Vec rectified(Vec v) { return v < 0 ? Vec{} : v; }  // what is not a number stays so

}  // namespace hdc::kernels
