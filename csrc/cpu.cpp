#include "retinaface/cpu.hpp"

#include <cstdlib>
#include <stdexcept>

#include "kernels/kernels.hpp"

#if defined(RETINAFACE_HAVE_AVX2) && defined(_MSC_VER)
#include <immintrin.h>
#include <intrin.h>
#endif

namespace retinaface {

namespace {

#ifdef RETINAFACE_HAVE_AVX2
bool cpu_has_avx2() noexcept {
#ifdef _MSC_VER
    int leaf[4];
    __cpuid(leaf, 0);
    if (leaf[0] < 7) return false;
    __cpuid(leaf, 1);
    const bool os_saves_ymm = (leaf[2] & (1 << 27)) != 0 && (_xgetbv(0) & 6) == 6;
    const bool fma = (leaf[2] & (1 << 12)) != 0;
    __cpuidex(leaf, 7, 0);
    return os_saves_ymm && fma && (leaf[1] & (1 << 5)) != 0;
#else
    return __builtin_cpu_supports("avx2") != 0 && __builtin_cpu_supports("fma") != 0;
#endif
}
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

const Kernels& table(SimdLevel level) noexcept {
#ifdef RETINAFACE_HAVE_AVX2
    if (level == SimdLevel::avx2) return kAvx2Kernels;
#endif
    static_cast<void>(level);
    return kScalarKernels;
}

}  // namespace

const char* simd_name(SimdLevel level) noexcept { return level == SimdLevel::avx2 ? "avx2" : "scalar"; }

std::vector<SimdLevel> available_simd_levels() {
    std::vector<SimdLevel> levels{SimdLevel::scalar};
#ifdef RETINAFACE_HAVE_AVX2
    if (cpu_has_avx2()) levels.push_back(SimdLevel::avx2);
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
