#define NAME portable
#define STRING(name) "portable"
#define LANES 4
#define WIDE 2
#define PIXELS_1 6
#define PIXELS_2 4
#define DEEP 2
#define SUMS 12
#include "kernels.inc"
