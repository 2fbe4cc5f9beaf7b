// What a kernel sees: its place in the grid, barriers, the collectives of a warp, atomics.
//
// A thread is a fiber. It runs until it has to wait for others and then gives way, so that the order in which
// threads meet is the test's to choose (cuda_on_cpu::schedule). What is undefined or a deadlock on a device
// ends the program here, and says what and where:
//  - a warp collective whose mask does not hold the caller,
//  - lanes of a mask that meet in different collectives or with different masks,
//  - threads that wait for a barrier or collective which others never come to.
// Lanes that have returned are not waited for. A value shuffled from a lane that does not take part is 0xA5
// in all bytes.
#pragma once

// The names are CUDA's.
// NOLINTBEGIN(bugprone-reserved-identifier)

extern uint3 threadIdx;
extern uint3 blockIdx;
extern dim3 blockDim;
extern dim3 gridDim;
constexpr int warpSize = 32;

namespace cuda_on_cpu {

cudaError_t launch(const cudaLaunchConfig_t* config, const void* kernel, void (*body)(const void*),
                   const void* call);

void barrier();

// What the lanes of a warp gave to a collective.
struct Exchange {
    unsigned lane;                // of the caller
    unsigned participants;        // bits
    const std::uint64_t* values;  // (32), until the caller waits again
};

// Waits for the lanes of `mask`. Only where a collective orders memory are writes before it visible after it
// to the race checker: of CUDA's, __syncwarp does, votes and shuffles do not.
Exchange collective(const char* name, unsigned mask, std::uint64_t value, bool orders_memory);

// A fence has no partner that is known: all of them are ordered for the race checker.
void fence();

template <typename T>
T shuffled(const Exchange& exchange, unsigned from) {
    static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= sizeof(std::uint64_t));
    const std::uint64_t undefined = 0xA5A5A5A5A5A5A5A5U;
    const bool defined = (exchange.participants >> from & 1U) != 0;
    T value;
    std::memcpy(&value, defined ? &exchange.values[from] : &undefined, sizeof value);
    return value;
}

template <typename T>
std::uint64_t as_bits(T value) {
    std::uint64_t bits = 0;
    std::memcpy(&bits, &value, sizeof value);
    return bits;
}

template <typename T>
inline constexpr bool has_atomics =
    std::is_same_v<T, int> || std::is_same_v<T, unsigned> || std::is_same_v<T, unsigned long long>;

}  // namespace cuda_on_cpu

// --- barriers and collectives

inline void __syncthreads() { cuda_on_cpu::barrier(); }
inline void __threadfence() { cuda_on_cpu::fence(); }
inline void __syncwarp(unsigned mask = 0xFFFFFFFFU) { cuda_on_cpu::collective("__syncwarp", mask, 0, true); }

inline unsigned __ballot_sync(unsigned mask, int predicate) {
    const cuda_on_cpu::Exchange all = cuda_on_cpu::collective("__ballot_sync", mask, predicate != 0, false);
    unsigned bits = 0;
    for (unsigned lane = 0; lane < 32; ++lane) {
        if ((all.participants >> lane & 1U) != 0 && all.values[lane] != 0) bits |= 1U << lane;
    }
    return bits;
}

inline int __any_sync(unsigned mask, int predicate) {
    const cuda_on_cpu::Exchange all = cuda_on_cpu::collective("__any_sync", mask, predicate != 0, false);
    for (unsigned lane = 0; lane < 32; ++lane) {
        if ((all.participants >> lane & 1U) != 0 && all.values[lane] != 0) return 1;
    }
    return 0;
}

inline int __all_sync(unsigned mask, int predicate) {
    const cuda_on_cpu::Exchange all = cuda_on_cpu::collective("__all_sync", mask, predicate != 0, false);
    for (unsigned lane = 0; lane < 32; ++lane) {
        if ((all.participants >> lane & 1U) != 0 && all.values[lane] == 0) return 0;
    }
    return 1;
}

template <typename T>
T __shfl_sync(unsigned mask, T value, int from, int width = warpSize) {
    const auto all = cuda_on_cpu::collective("__shfl_sync", mask, cuda_on_cpu::as_bits(value), false);
    const unsigned within = static_cast<unsigned>(width) - 1;
    return cuda_on_cpu::shuffled<T>(all, (all.lane & ~within) | (static_cast<unsigned>(from) & within));
}

template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned apart, int width = warpSize) {
    const auto all = cuda_on_cpu::collective("__shfl_down_sync", mask, cuda_on_cpu::as_bits(value), false);
    const unsigned within = static_cast<unsigned>(width) - 1;
    const bool inside = (all.lane & within) + apart <= within;
    return cuda_on_cpu::shuffled<T>(all, inside ? all.lane + apart : all.lane);
}

template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned apart, int width = warpSize) {
    const auto all = cuda_on_cpu::collective("__shfl_up_sync", mask, cuda_on_cpu::as_bits(value), false);
    const bool inside = (all.lane & (static_cast<unsigned>(width) - 1)) >= apart;
    return cuda_on_cpu::shuffled<T>(all, inside ? all.lane - apart : all.lane);
}

template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = warpSize) {
    const auto all = cuda_on_cpu::collective("__shfl_xor_sync", mask, cuda_on_cpu::as_bits(value), false);
    const unsigned within = static_cast<unsigned>(width) - 1;
    const unsigned from = all.lane ^ static_cast<unsigned>(bits);
    return cuda_on_cpu::shuffled<T>(all, from <= (all.lane | within) ? from : all.lane);
}

// --- bits

inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
inline int __popcll(unsigned long long bits) { return __builtin_popcountll(bits); }
inline int __ffs(int bits) { return __builtin_ffs(bits); }
inline int __ffsll(long long bits) { return __builtin_ffsll(bits); }
inline int __clz(int bits) { return bits == 0 ? 32 : __builtin_clz(static_cast<unsigned>(bits)); }
inline int __clzll(long long bits) {
    return bits == 0 ? 64 : __builtin_clzll(static_cast<unsigned long long>(bits));
}

inline int min(int a, int b) { return b < a ? b : a; }
inline int max(int a, int b) { return a < b ? b : a; }
inline unsigned min(unsigned a, unsigned b) { return b < a ? b : a; }
inline unsigned max(unsigned a, unsigned b) { return a < b ? b : a; }

// --- memory

template <typename T>
T __ldg(const T* address) {
    return *address;
}

// Relaxed, as on a device: an atomic orders nothing but itself.
template <typename T>
T atomicAdd(T* address, T value) {
    static_assert(cuda_on_cpu::has_atomics<T>);
    return __atomic_fetch_add(address, value, __ATOMIC_RELAXED);
}

template <typename T>
T atomicOr(T* address, T value) {
    static_assert(cuda_on_cpu::has_atomics<T>);
    return __atomic_fetch_or(address, value, __ATOMIC_RELAXED);
}

template <typename T>
T atomicMax(T* address, T value) {
    static_assert(cuda_on_cpu::has_atomics<T>);
    T old = __atomic_load_n(address, __ATOMIC_RELAXED);
    while (old < value &&
           !__atomic_compare_exchange_n(address, &old, value, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
    }
    return old;
}

template <typename T>
T atomicMin(T* address, T value) {
    static_assert(cuda_on_cpu::has_atomics<T>);
    T old = __atomic_load_n(address, __ATOMIC_RELAXED);
    while (value < old &&
           !__atomic_compare_exchange_n(address, &old, value, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
    }
    return old;
}

// NOLINTEND(bugprone-reserved-identifier)
