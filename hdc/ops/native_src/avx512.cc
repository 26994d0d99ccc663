#define NAME avx512
#define STRING(name) "avx512"
#define LANES 16
#define WIDE 4
#define PIXELS_1 14
#define PIXELS_2 12
#define PIXELS_3 8
#define PIXELS_4 6
#define DEEP 4
#define SUMS 27
#include "kernels.inc"
