/* Instructions of sm_80 and later that C++ has no word for: copies to shared memory behind the threads' back, and tensor-core products. */
#pragma once
#include <stdint.h>

__device__ __forceinline__ uint32_t shared_address(const void *p) { return (uint32_t)__cvta_generic_to_shared(p); }

/* Copies 16 (8) bytes from global to shared memory, both aligned so; `valid` false: zeros, and nothing is read. */
__device__ __forceinline__ void copy_16(uint32_t shared, const void *global, bool valid) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared), "l"(global), "r"(valid ? 16 : 0) : "memory");
}
__device__ __forceinline__ void copy_8(uint32_t shared, const void *global, bool valid) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 8, %2;" ::"r"(shared), "l"(global), "r"(valid ? 8 : 0) : "memory");
}
/* Waits for all of the thread's copies. */
__device__ __forceinline__ void await_copies() { asm volatile("cp.async.wait_all;" ::: "memory"); }

/* Four matrices of 8 rows of 16 bytes: lane i names row i % 8 of matrix i / 8 and gets bytes 4 (i % 4) ... of row i / 4 of each. */
__device__ __forceinline__ void load_matrices(uint32_t *r, uint32_t shared) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared) : "memory");
}

/*
 * d = a b + c of one warp. a: 16 rows, b: 8 columns; lane i has of d rows i / 4 (d[0], d[1]) and i / 4 + 8 (d[2], d[3]), columns 2 (i % 4) and the
 * next. c is the same number everywhere for integers.
 */
__device__ __forceinline__ void multiply_s8_32(int32_t (&d)[4], const uint32_t *a, const uint32_t *b, int32_t c) {
  asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%10, %10, %10, %10};"
      : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "r"(c));
}
__device__ __forceinline__ void multiply_s8_16(int32_t (&d)[4], const uint32_t *a, const uint32_t *b, int32_t c) {
  asm("mma.sync.aligned.m16n8k16.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%7, %7, %7, %7};"
      : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3]) : "r"(a[0]), "r"(a[1]), "r"(b[0]), "r"(c));
}
/* d += a b */
__device__ __forceinline__ void multiply_bf16(float (&d)[4], const uint32_t *a, const uint32_t *b) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
