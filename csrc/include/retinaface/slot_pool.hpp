// Objects that calls take and give back, without a lock: a process that forks in the middle of another
// thread's call has a pool that works, short of what that call had taken.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <memory>

namespace retinaface {

template <typename T, std::size_t slots>
class SlotPool {
  public:
    SlotPool() = default;
    SlotPool(const SlotPool&) = delete;
    SlotPool& operator=(const SlotPool&) = delete;
    ~SlotPool() {
        while (take() != nullptr) {
        }
    }

    // Null if there is none. The first slots are the ones in use, whose objects lie in the caches.
    [[nodiscard]] std::unique_ptr<T> take() noexcept {
        for (std::atomic<T*>& slot : slots_) {
            if (slot.load(std::memory_order_relaxed) == nullptr) continue;
            if (T* const object = slot.exchange(nullptr, std::memory_order_acquire)) {
                return std::unique_ptr<T>(object);
            }
        }
        return nullptr;
    }

    // False, and the object stays with the caller, if all slots are full.
    [[nodiscard]] bool give(std::unique_ptr<T>& object) noexcept {
        for (std::atomic<T*>& slot : slots_) {
            T* empty = nullptr;
            if (slot.load(std::memory_order_relaxed) != nullptr) continue;
            if (slot.compare_exchange_strong(empty, object.get(), std::memory_order_release,
                                             std::memory_order_relaxed)) {
                static_cast<void>(object.release());
                return true;
            }
        }
        return false;
    }

  private:
    std::array<std::atomic<T*>, slots> slots_{};
};

}  // namespace retinaface
