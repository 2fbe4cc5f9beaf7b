// The instruction set that the kernels use, chosen once.
#pragma once

#include <string>
#include <vector>

namespace retinaface {

// avx2: AVX2 and FMA. avx512: those and AVX-512 F, BW, DQ and VL.
enum class SimdLevel { scalar, neon, avx2, avx512 };

[[nodiscard]] const char* simd_name(SimdLevel level) noexcept;

// The levels that this build holds and this CPU can run, slowest first; scalar is always there.
[[nodiscard]] std::vector<SimdLevel> available_simd_levels();

// The level in use: the best available one, or the one that the environment variable RETINAFACE_FAST_SIMD
// names ("scalar", "neon", "avx2", "avx512"). Chosen at the first call. Throws std::runtime_error if the
// variable names a level that does not exist or that this machine cannot run.
[[nodiscard]] SimdLevel active_simd_level();

}  // namespace retinaface
