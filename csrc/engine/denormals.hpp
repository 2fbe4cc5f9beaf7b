// Numbers below 1e-38 are taken for zero while one of these lives, and as before afterwards: arithmetic on
// them can cost a hundred times as much, and an image without contrast is full of them.
#pragma once

#include <cstdint>

#if defined(__SSE2__) || defined(_M_X64)
#include <xmmintrin.h>
#define RETINAFACE_CONTROL_SSE
#elif defined(__aarch64__) && !defined(_MSC_VER)
#define RETINAFACE_CONTROL_FPCR
#endif

namespace retinaface::engine {

class FlushDenormals {
  public:
#if defined(RETINAFACE_CONTROL_SSE)
    FlushDenormals() noexcept : before_(_mm_getcsr()) {
        _mm_setcsr(before_ | kFlushToZero | kDenormalsAreZero);
    }
    ~FlushDenormals() { _mm_setcsr(before_); }
#elif defined(RETINAFACE_CONTROL_FPCR)
    FlushDenormals() noexcept {
        __asm__ volatile("mrs %0, fpcr" : "=r"(before_));
        __asm__ volatile("msr fpcr, %0" : : "r"(before_ | kFlushToZero));
    }
    ~FlushDenormals() { __asm__ volatile("msr fpcr, %0" : : "r"(before_)); }
#else
    FlushDenormals() noexcept = default;
    ~FlushDenormals() {}  // user-provided: a guard that does nothing is still a guard
#endif
    FlushDenormals(const FlushDenormals&) = delete;
    FlushDenormals& operator=(const FlushDenormals&) = delete;

  private:
#if defined(RETINAFACE_CONTROL_SSE)
    static constexpr unsigned kFlushToZero = 1U << 15U;
    static constexpr unsigned kDenormalsAreZero = 1U << 6U;
    unsigned before_;
#elif defined(RETINAFACE_CONTROL_FPCR)
    static constexpr std::uint64_t kFlushToZero = std::uint64_t{1} << 24U;
    std::uint64_t before_ = 0;
#endif
};

}  // namespace retinaface::engine
