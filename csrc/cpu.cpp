#include "retinaface/cpu.hpp"

#include <cstddef>
#include <cstdlib>
#include <stdexcept>

#include "kernels/kernels.hpp"

#if defined(RETINAFACE_HAVE_AVX2) && defined(_MSC_VER)
#include <immintrin.h>
#include <intrin.h>
#endif

namespace retinaface {

namespace {

#if defined(RETINAFACE_HAVE_AVX2) && defined(_MSC_VER)

// Register `index` (eax, ebx, ecx, edx) of a leaf of CPUID, 0 where the CPU has no such leaf.
unsigned cpuid(int leaf, std::size_t index) noexcept {
    int registers[4];
    __cpuid(registers, 0);
    if (registers[0] < leaf) return 0;
    __cpuidex(registers, leaf, 0);
    return static_cast<unsigned>(registers[index]);
}

bool has_bits(unsigned value, unsigned bits) noexcept { return (value & bits) == bits; }

// Whether the system saves all these registers when it switches threads: bits 1 and 2 of XCR0 stand for xmm
// and ymm, 5 to 7 for the masks and the two parts of zmm. Bit 27 of ecx: XCR0 may be read.
bool system_saves(unsigned bits) noexcept {
    return has_bits(cpuid(1, 2), 1U << 27U) && has_bits(static_cast<unsigned>(_xgetbv(0)), bits);
}

bool cpu_has_avx2() noexcept {
    return system_saves(0x06) && has_bits(cpuid(1, 2), 1U << 12U) && has_bits(cpuid(7, 1), 1U << 5U);
}

#ifdef RETINAFACE_HAVE_AVX512
bool cpu_has_avx512() noexcept {
    constexpr unsigned f = 1U << 16U;
    constexpr unsigned dq = 1U << 17U;
    constexpr unsigned bw = 1U << 30U;
    constexpr unsigned vl = 1U << 31U;
    return system_saves(0xE6) && has_bits(cpuid(7, 1), f | dq | bw | vl);
}
#endif

#elif defined(RETINAFACE_HAVE_AVX2)

// These ask the system as well as the CPU.
bool cpu_has_avx2() noexcept {
    return __builtin_cpu_supports("avx2") != 0 && __builtin_cpu_supports("fma") != 0;
}

#ifdef RETINAFACE_HAVE_AVX512
bool cpu_has_avx512() noexcept {
    return __builtin_cpu_supports("avx512f") != 0 && __builtin_cpu_supports("avx512dq") != 0 &&
           __builtin_cpu_supports("avx512bw") != 0 && __builtin_cpu_supports("avx512vl") != 0;
}
#endif

#endif

SimdLevel choose_level() {
    const std::vector<SimdLevel> available = available_simd_levels();
    const char* const wanted = std::getenv("RETINAFACE_FAST_SIMD");
    if (wanted == nullptr || *wanted == '\0') return available.back();
    std::string choices;
    for (const SimdLevel level : available) {
        if (std::string(wanted) == simd_name(level)) return level;
        choices += (choices.empty() ? "" : ", ") + std::string(simd_name(level));
    }
    throw std::runtime_error("the environment variable RETINAFACE_FAST_SIMD is '" + std::string(wanted) +
                             "', but this build on this machine has: " + choices);
}

// Post-processing has no forms of its own for AVX-512, whose CPUs run the AVX2 one, and NEON.
const Kernels& table(SimdLevel level) noexcept {
#ifdef RETINAFACE_HAVE_AVX2
    if (level == SimdLevel::avx2 || level == SimdLevel::avx512) return kAvx2Kernels;
#endif
    static_cast<void>(level);
    return kScalarKernels;
}

}  // namespace

const char* simd_name(SimdLevel level) noexcept {
    switch (level) {
        case SimdLevel::neon:
            return "neon";
        case SimdLevel::avx2:
            return "avx2";
        case SimdLevel::avx512:
            return "avx512";
        default:
            return "scalar";
    }
}

std::vector<SimdLevel> available_simd_levels() {
    std::vector<SimdLevel> levels{SimdLevel::scalar};
#if defined(__aarch64__) || defined(_M_ARM64)
    levels.push_back(SimdLevel::neon);
#endif
#ifdef RETINAFACE_HAVE_AVX2
    if (cpu_has_avx2()) {
        levels.push_back(SimdLevel::avx2);
#ifdef RETINAFACE_HAVE_AVX512
        if (cpu_has_avx512()) levels.push_back(SimdLevel::avx512);
#endif
    }
#endif
    return levels;
}

SimdLevel active_simd_level() {
    static const SimdLevel level = choose_level();
    return level;
}

const Kernels& kernels() {
    static const Kernels& active = table(active_simd_level());
    return active;
}

}  // namespace retinaface
