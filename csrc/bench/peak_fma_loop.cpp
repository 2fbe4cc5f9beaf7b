// Nothing but independent fused multiply-adds, as many as the registers hold. Compiled once for each
// instruction set; PEAK_NAME, PEAK_BYTES and PEAK_ACCUMULATORS come from CMakeLists.txt.
#include <cstddef>

namespace {

using Vector = float __attribute__((vector_size(PEAK_BYTES)));
constexpr std::size_t kAccumulators = PEAK_ACCUMULATORS;

}  // namespace

extern "C" std::size_t PEAK_NAME(std::size_t rounds, float* out) noexcept;

// Returns the multiply-adds done; `out` has room for a vector and keeps the compiler from leaving them out.
extern "C" std::size_t PEAK_NAME(std::size_t rounds, float* out) noexcept {
    Vector factor;
    Vector sums[kAccumulators];
    for (std::size_t lane = 0; lane < PEAK_BYTES / sizeof(float); ++lane) {
        factor[lane] = 0.5F + 0.01F * out[lane];
        for (std::size_t i = 0; i < kAccumulators; ++i) {
            sums[i][lane] = out[lane] + static_cast<float>(i);
        }
    }
    for (std::size_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 64
        for (std::size_t i = 0; i < kAccumulators; ++i) {
            sums[i] = sums[i] * factor + factor;  // goes to factor / (1 - factor), far from denormal numbers
        }
        // The sums stay where they are, but may have changed for all the compiler knows: no round is left
        // out.
        asm volatile("" : : "r"(round));
    }
    Vector total = sums[0];
    for (std::size_t i = 1; i < kAccumulators; ++i) {
        total = total + sums[i];
    }
    for (std::size_t lane = 0; lane < PEAK_BYTES / sizeof(float); ++lane) {
        out[lane] = total[lane];
    }
    return rounds * kAccumulators * (PEAK_BYTES / sizeof(float));
}
