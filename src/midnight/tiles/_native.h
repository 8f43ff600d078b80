/* What _jpeg.c and _views.c share: one source for several instruction sets, and vectors for GCC from 9 on and Clang. */
#ifndef MIDNIGHT_NATIVE_H
#define MIDNIGHT_NATIVE_H
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Compiled once per instruction set, the best one chosen when the library is loaded; -DVECTORIZED= for none of that. */
#if defined(VECTORIZED)
#elif !defined(__x86_64__) || !defined(__linux__)
#define VECTORIZED
#elif !defined(__clang__) && __GNUC__ >= 12
#define VECTORIZED __attribute__((target_clones("arch=x86-64-v4", "avx2", "default")))
#elif !defined(__clang__) || __clang_major__ >= 14
#define VECTORIZED __attribute__((target_clones("avx2", "default")))
#else
#define VECTORIZED
#endif
#define INLINE static inline __attribute__((always_inline))

/* Elements of two vectors of one type, counted through both. */
#ifdef __clang__
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (__typeof__(a)){__VA_ARGS__})
#endif

typedef uint8_t Bytes16 __attribute__((vector_size(16)));
typedef int32_t Four __attribute__((vector_size(16)));
#endif
