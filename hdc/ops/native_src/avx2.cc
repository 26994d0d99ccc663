#define NAME avx2
#define STRING(name) "avx2"
#define LANES 8
#define WIDE 2
#define PIXELS_1 10
#define PIXELS_2 6
#define DEEP 2
#define SUMS 12
#include "kernels.inc"
