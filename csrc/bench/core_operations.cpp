// One operation of the core on a made-up input, for instruments that count: `core_operations check|run NAME`.
//
// Both print one line, "avx2 16800 anchors 3f5a…": the instruction set, how many items the operation has gone
// through, what they are, and a hash of the answer. `check` compares the answer with a plain loop first and
// exits with 1 where it is wrong. `run` leaves that out, because under an emulator it would take minutes; the
// same hash says that the answer is the one that was checked. `core_operations list` prints the names.
//
// What is to be counted happens inside `measured_operation`, a symbol to be told to the instrument (of
// callgrind:
// --toggle-collect=measured_operation). The operation has run once before, so its buffers have their size.
#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <exception>
#include <memory>

#include "operations.hpp"
#include "retinaface/cpu.hpp"

#if defined(_MSC_VER)
#define NOT_INLINED __declspec(noinline)
#else
#define NOT_INLINED __attribute__((noinline))
#endif

extern "C" NOT_INLINED void measured_operation(bench::Operation& operation);

void measured_operation(bench::Operation& operation) { operation.run(); }

namespace {

int print_names() {
    for (const bench::Entry& entry : bench::operations()) std::puts(entry.name);
    return 0;
}

int measure(const bench::Entry& entry, bool check) {
    const std::unique_ptr<bench::Operation> operation = entry.make();
    operation->run();
    measured_operation(*operation);
    if (check) {
        operation->check();
        if (check::failures != 0) {
            std::fprintf(stderr, "%s: the answer is wrong\n", entry.name);
            return 1;
        }
    }
    std::printf("%s %zu %s %016" PRIx64 "\n", retinaface::simd_name(retinaface::active_simd_level()),
                operation->items(), entry.unit, operation->hash());
    return 0;
}

int run(int argc, const char* const* argv) {
    if (argc == 2 && std::strcmp(argv[1], "list") == 0) return print_names();
    if (argc == 2 && std::strcmp(argv[1], "build") == 0) {
        std::puts(BENCH_COMPILER "\n" BENCH_FLAGS);
        return 0;
    }
    const bool check = argc == 3 && std::strcmp(argv[1], "check") == 0;
    if (check || (argc == 3 && std::strcmp(argv[1], "run") == 0)) {
        for (const bench::Entry& entry : bench::operations()) {
            if (std::strcmp(argv[2], entry.name) == 0) return measure(entry, check);
        }
        std::fprintf(stderr, "core_operations: expected a name that 'list' prints, got %s\n", argv[2]);
        return 2;
    }
    std::fputs("usage: core_operations list | build | check NAME | run NAME\n", stderr);
    return 2;
}

}  // namespace

int main(int argc, char** argv) {
    try {
        return run(argc, argv);
    } catch (const std::exception& error) {
        std::fprintf(stderr, "core_operations: %s\n", error.what());
        return 2;
    }
}
