// Prints how many float32 multiply-adds one core does in a second, in 1e9: `peak_fma [seconds]`.
//
// One line, "avx2 49.21": the widest instruction set that the processor has, and the best of many short runs,
// so that what else the machine does counts as little as possible.
#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <cstdlib>

extern "C" {
std::size_t peak_baseline(std::size_t rounds, float* out) noexcept;
#ifdef PEAK_HAVE_AVX2
std::size_t peak_avx2(std::size_t rounds, float* out) noexcept;
std::size_t peak_avx512(std::size_t rounds, float* out) noexcept;
#endif
#ifdef PEAK_HAVE_NEON
std::size_t peak_neon(std::size_t rounds, float* out) noexcept;
#endif
}

namespace {

struct Loop {
    const char* name;
    std::size_t (*run)(std::size_t, float*) noexcept;
};

// 512-bit units may be clocked lower: every loop that can run is tried, and the fastest is what counts.
std::size_t list_loops(std::array<Loop, 3>& loops) {
    std::size_t count = 0;
    loops[count++] = {"baseline", peak_baseline};
#ifdef PEAK_HAVE_AVX2
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        loops[count++] = {"avx2", peak_avx2};
    }
    if (__builtin_cpu_supports("avx512f")) {
        loops[count++] = {"avx512", peak_avx512};
    }
#endif
#ifdef PEAK_HAVE_NEON
    loops[count++] = {"neon", peak_neon};
#endif
    return count;
}

}  // namespace

int main(int argc, char** argv) {
    using Clock = std::chrono::steady_clock;
    constexpr std::size_t kRounds = 20000;  // a fraction of a millisecond: shorter than a time slice
    const double seconds = argc > 1 ? std::atof(argv[1]) : 0.5;
    if (!(seconds > 0)) {
        std::fprintf(stderr, "peak_fma: expected a number of seconds, got %s\n", argv[1]);
        return 2;
    }
    std::array<Loop, 3> loops{};
    const std::size_t count = list_loops(loops);
    std::array<float, 16> numbers{};
    numbers.fill(0.25F);
    const char* name = "";
    double best = 0;
    const auto deadline = Clock::now() + std::chrono::duration<double>(seconds);
    do {
        for (std::size_t i = 0; i < count; ++i) {
            const auto start = Clock::now();
            const std::size_t done = loops[i].run(kRounds, numbers.data());
            const double took = std::chrono::duration<double>(Clock::now() - start).count();
            const double rate = static_cast<double>(done) / took;
            if (rate > best) {
                best = rate;
                name = loops[i].name;
            }
            // Whatever the sums have become, the next run begins with tame numbers.
            for (float& number : numbers) {
                number = std::min(std::max(number, 0.1F), 1.0F);
            }
        }
    } while (Clock::now() < deadline);
    std::printf("%s %.3f\n", name, best / 1e9);
    return 0;
}
