/* 64-bit atomics for ARMv5TE, which has no instruction for them.
 *
 * On this target the compilers call a function for every atomic. Rust's own library brings
 * those of 1, 2 and 4 bytes; mimalloc's statistics also need 8, and zig brings none. Linux
 * lends user programs its compare-and-exchange at a fixed address: Documentation/arch/arm/
 * kernel_user_helpers.rst, __kuser_cmpxchg64, since Linux 3.1, kernel option KUSER_HELPERS.
 *
 * Only the `arm` build links this file, and only what is called stays in the binary.
 */

#include <stdint.h>

/* Stores *new at ptr if *old is there, and answers 0 if it did. Atomic, and a full barrier. */
typedef int kuser_cmpxchg64(const uint64_t *old, const uint64_t *new, volatile uint64_t *ptr);
#define KUSER_CMPXCHG64 ((kuser_cmpxchg64 *)0xffff0f60)

/* The reserved names that the compiler calls cannot be defined as such in C: they are built in. */
#define SYNC8(name) __asm__("__sync_" name "_8")

uint64_t val_compare_and_swap(volatile uint64_t *ptr, uint64_t expected, uint64_t desired)
    SYNC8("val_compare_and_swap");
uint64_t val_compare_and_swap(volatile uint64_t *ptr, uint64_t expected, uint64_t desired)
{
    for (;;) {
        /* The two halves are read one by one; only the helper can tell that they belong together,
         * so a value that is not the expected one is written back unchanged to find out. */
        uint64_t seen = *ptr;
        uint64_t next = seen == expected ? desired : seen;
        if (KUSER_CMPXCHG64(&seen, &next, ptr) == 0)
            return seen;
    }
}

#define FETCH(function, name, expression)                                  \
    uint64_t function(volatile uint64_t *ptr, uint64_t value) SYNC8(name); \
    uint64_t function(volatile uint64_t *ptr, uint64_t value)              \
    {                                                                      \
        for (;;) {                                                         \
            uint64_t seen = *ptr;                                          \
            uint64_t next = (expression);                                  \
            if (KUSER_CMPXCHG64(&seen, &next, ptr) == 0)                   \
                return seen;                                               \
        }                                                                  \
    }

FETCH(lock_test_and_set, "lock_test_and_set", value)
FETCH(fetch_and_add, "fetch_and_add", seen + value)
FETCH(fetch_and_sub, "fetch_and_sub", seen - value)
FETCH(fetch_and_and, "fetch_and_and", seen & value)
FETCH(fetch_and_or, "fetch_and_or", seen | value)
FETCH(fetch_and_xor, "fetch_and_xor", seen ^ value)
