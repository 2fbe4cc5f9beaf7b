#include "engine/kernels/kernels.hpp"

#include "retinaface/cpu.hpp"

namespace retinaface::engine {

namespace {

const EngineKernels& table(SimdLevel level) noexcept {
#ifdef RETINAFACE_HAVE_NEON
    if (level == SimdLevel::neon) return kNeonEngineKernels;
#endif
#ifdef RETINAFACE_HAVE_AVX2
    if (level == SimdLevel::avx2) return kAvx2EngineKernels;
#endif
#ifdef RETINAFACE_HAVE_AVX512
    if (level == SimdLevel::avx512) return kAvx512EngineKernels;
#endif
    static_cast<void>(level);
    return kScalarEngineKernels;
}

}  // namespace

const EngineKernels& engine_kernels() {
    static const EngineKernels& active = table(active_simd_level());
    return active;
}

}  // namespace retinaface::engine
