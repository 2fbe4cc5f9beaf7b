// csrc/cuda/postprocess.cu with the kernels that nvcc made of it, which tools/ptx_to_cpp.py has turned from
// PTX into C++, in the place of those that the compiler of the host makes.
#include <cuda_runtime.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>

#define retinaface_compare source_of_compare
#define retinaface_decode source_of_decode
#define retinaface_gather source_of_gather
#define retinaface_overlap source_of_overlap
#define retinaface_reduce source_of_reduce
#define retinaface_scan source_of_scan
#define retinaface_sort source_of_sort
#include "cuda/kernels.cuh"
#undef retinaface_compare
#undef retinaface_decode
#undef retinaface_gather
#undef retinaface_overlap
#undef retinaface_reduce
#undef retinaface_scan
#undef retinaface_sort

namespace retinaface::cuda {

namespace {

template <typename To, typename From>
To bits(From from) noexcept {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    std::memcpy(&to, &from, sizeof to);
    return to;
}

template <typename T>
T load(const char* address) noexcept {
    T value;
    std::memcpy(&value, address, sizeof value);
    return value;
}

template <typename T>
void store(char* address, T value) noexcept {
    std::memcpy(address, &value, sizeof value);
}

std::uint32_t low_half(std::uint64_t value) noexcept { return static_cast<std::uint32_t>(value); }

std::uint32_t count_ones(std::uint64_t value) noexcept {
    return static_cast<std::uint32_t>(__builtin_popcountll(value));
}

template <typename T>
std::uint32_t count_leading_zeros(T value) noexcept {
    std::uint32_t zeros = 8 * sizeof(T);
    for (; value != 0; value >>= 1U) --zeros;
    return zeros;
}

template <typename T>
T insert_bits(T value, T into, std::uint32_t at, std::uint32_t length) noexcept {
    const T mask = length < 8 * sizeof(T) ? (T{1} << length) - 1 : ~T{0};
    return (into & ~(mask << at)) | (value & mask) << at;
}

// What PTX leaves undefined, or what is not followed here.
void require(bool holds) noexcept {
    if (!holds) std::abort();
}

void require_aligned(const char* address, std::size_t bytes) noexcept {
    require(reinterpret_cast<std::uintptr_t>(address) % bytes == 0);
}

}  // namespace

#include "kernels_from_ptx.inc"

}  // namespace retinaface::cuda

#include "cuda/postprocess.cu"
