/* Includes the header ARITHMETIC once for each instruction set that a machine may have. It finds
 *
 * INSTRUCTIONS  a name to end its functions' names with: base, avx2, avx512;
 * VECTOR_BYTES  the width of a vector;
 * FUSED         whether a product and a sum are rounded together.
 *
 * The header is a template, which C has no other form of: the width of a vector is part of its type, so inline functions
 * with constant arguments would not do, and a source file per instruction set would need flags that differ between
 * compilers and processors. Each copy is compiled under the pragmas below, in one file, whose functions take their names
 * from NAME.
 */
#define JOIN(a, b) a##_##b
#define JOIN_NAMES(a, b) JOIN(a, b)

#define INSTRUCTIONS base
#define VECTOR_BYTES 16 /* SSE2, NEON */
#if defined(__FMA__) || defined(__aarch64__)
#define FUSED 1
#else
#define FUSED 0
#endif
#include ARITHMETIC
#undef FUSED
#define FUSED 1

#if defined(__x86_64__) && defined(__GNUC__)
#define HAVE_X86 1

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif
#undef INSTRUCTIONS
#define INSTRUCTIONS avx2
#undef VECTOR_BYTES
#define VECTOR_BYTES 32
#include ARITHMETIC
#if defined(__clang__)
#pragma clang attribute pop
#pragma clang attribute push(__attribute__((target("avx512f,avx512dq,avx2,fma"))), apply_to = function)
#else
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx512f,avx512dq,avx2,fma,prefer-vector-width=512")
#endif
#undef INSTRUCTIONS
#define INSTRUCTIONS avx512
#undef VECTOR_BYTES
#define VECTOR_BYTES 64
#include ARITHMETIC
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif

#undef INSTRUCTIONS
#undef VECTOR_BYTES
#undef FUSED
