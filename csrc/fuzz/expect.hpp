// What a fuzz target demands of an answer: a message and an abort, which libFuzzer takes for a finding.
#pragma once

#include <cstdio>
#include <cstdlib>

namespace fuzz {

inline void expect(bool holds, const char* expression, const char* file, int line) {
    if (holds) return;
    std::fprintf(stderr, "%s:%d: does not hold: %s\n", file, line, expression);
    std::abort();
}

}  // namespace fuzz

#define EXPECT(expression) fuzz::expect((expression), #expression, __FILE__, __LINE__)
