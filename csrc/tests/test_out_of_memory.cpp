// Every allocation of a call fails once, and the next call must be as good as ever.
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>
#include <vector>

#include "check.hpp"
#include "random_network.hpp"
#include "retinaface/engine.hpp"

namespace {

constexpr int kNever = 1 << 30;
std::atomic<int> before_failure{kNever};

void* allocate(std::size_t bytes, std::size_t alignment) noexcept {
    if (before_failure.fetch_sub(1) <= 0) return nullptr;
    const std::size_t whole = (bytes / alignment + 1) * alignment;
    return alignment > alignof(std::max_align_t) ? std::aligned_alloc(alignment, whole) : std::malloc(whole);
}

void* allocate_or_throw(std::size_t bytes, std::size_t alignment) {
    void* const memory = allocate(bytes, alignment);
    if (memory == nullptr) throw std::bad_alloc();
    return memory;
}

}  // namespace

// All forms that the core and the standard library use.
void* operator new(std::size_t bytes) { return allocate_or_throw(bytes, 1); }
void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept { return allocate(bytes, 1); }
void* operator new(std::size_t bytes, std::align_val_t alignment) {
    return allocate_or_throw(bytes, static_cast<std::size_t>(alignment));
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete(void* memory, const std::nothrow_t&) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }

namespace {

void a_failed_allocation_leaves_nothing_behind() {
    const check::RandomNetwork network(check::mobilenet(2, 64), 1);
    const retinaface::NetworkOptions options{check::pyramid()};
    const std::vector<std::uint8_t> pixels(3 * 96 * 128, 90);
    retinaface::PostprocessOptions everything;
    everything.score_threshold = 0.0;
    everything.top_k = 100;
    for (std::size_t threads = 1; threads <= 2; ++threads) {
        const retinaface::Engine reference(network.tensors, options, threads);
        int failures = 0;
        for (int n = 0; n < 400; ++n) {
            // A new engine, so that every call has everything to allocate; another size, so that it plans.
            const retinaface::Engine engine(network.tensors, options, threads);
            bool failed = false;
            for (const std::size_t width : {64U, 128U}) {
                const retinaface::ImageView image{
                    pixels.data(), {96, width}, 3 * 128, retinaface::ChannelOrder::bgr};
                retinaface::Workspace expected;
                reference.detect(image, everything, expected);
                retinaface::Workspace faces;
                before_failure = n;
                try {
                    engine.detect(image, everything, faces);
                } catch (const std::bad_alloc&) {
                    failed = true;
                }
                before_failure = kNever;
                engine.detect(image, everything, faces);
                CHECK(faces.boxes == expected.boxes && faces.scores == expected.scores);
            }
            if (!failed) break;
            ++failures;
        }
        CHECK(failures > 20 && failures < 400);
    }
}

}  // namespace

CHECK_MAIN(a_failed_allocation_leaves_nothing_behind)
