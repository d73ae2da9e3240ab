/* Includes native_kernels.h once for each precision. KERNEL_FLOAT says whether it is single. See native_instructions.h,
 * which includes this header once for each instruction set.
 */
#define KERNEL_FLOAT 1
#include "native_kernels.h"
#undef KERNEL_FLOAT
#define KERNEL_FLOAT 0
#include "native_kernels.h"
#undef KERNEL_FLOAT
