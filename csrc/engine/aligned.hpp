// Memory for floats that begins at a cache line and is not written before it is used.
#pragma once

#include <cstddef>
#include <memory>
#include <new>
#include <utility>

namespace retinaface::engine {

class AlignedFloats {
  public:
    static constexpr std::size_t kAlignment = 64;

    AlignedFloats() noexcept = default;
    // Throws std::bad_alloc.
    explicit AlignedFloats(std::size_t count) : count_(count) {
        if (count > static_cast<std::size_t>(-1) / (2 * sizeof(float))) throw std::bad_alloc();
        data_.reset(static_cast<float*>(::operator new(count * sizeof(float), std::align_val_t{kAlignment})));
    }

    [[nodiscard]] float* data() const noexcept { return data_.get(); }
    [[nodiscard]] std::size_t size() const noexcept { return count_; }

  private:
    struct Free {
        void operator()(float* memory) const noexcept {
            ::operator delete(memory, std::align_val_t{kAlignment});
        }
    };
    std::unique_ptr<float, Free> data_;
    std::size_t count_ = 0;
};

}  // namespace retinaface::engine
