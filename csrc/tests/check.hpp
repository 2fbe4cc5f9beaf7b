// The few lines of test framework that the core needs: checks that say what failed and where, and a main.
#pragma once

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "retinaface/cpu.hpp"

namespace check {

inline int failures = 0;

inline void that(bool holds, const char* expression, const char* file, int line) {
    if (holds) return;
    std::fprintf(stderr, "%s:%d: failed: %s\n", file, line, expression);
    if (++failures >= 20) std::exit(1);
}

template <typename Function>
void throws(Function function, const char* expression, const char* file, int line) {
    try {
        function();
    } catch (const std::exception&) {
        return;
    }
    that(false, expression, file, line);
}

// Whether this machine can run the level that the environment asks for.
inline bool level_available() {
    const char* const wanted = std::getenv("RETINAFACE_FAST_SIMD");
    if (wanted == nullptr) return true;
    for (const retinaface::SimdLevel level : retinaface::available_simd_levels()) {
        if (std::strcmp(wanted, retinaface::simd_name(level)) == 0) return true;
    }
    return false;
}

using Random = std::mt19937_64;

inline float uniform(Random& random, float low, float high) {
    return low + (high - low) * static_cast<float>(random() >> 40U) / 16777216.0F;
}

}  // namespace check

#define CHECK(expression) check::that((expression), #expression, __FILE__, __LINE__)
#define CHECK_THROWS(statement) \
    check::throws([&]() { statement; }, #statement " should throw", __FILE__, __LINE__)

#define CHECK_MAIN(...)                                           \
    int main() {                                                  \
        if (!check::level_available()) return 77;                 \
        for (void (*const test)() : {__VA_ARGS__}) test();        \
        if (check::failures == 0) std::puts("all checks passed"); \
        return check::failures == 0 ? 0 : 1;                      \
    }
