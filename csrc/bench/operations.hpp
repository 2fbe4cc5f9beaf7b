// The operations that core_operations runs: each has a fixed input, and knows what its answer has to be.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include "check.hpp"

namespace bench {

class Operation {
  public:
    Operation() = default;
    Operation(const Operation&) = delete;
    Operation& operator=(const Operation&) = delete;
    virtual ~Operation() = default;

    // What is measured. Every call gives the same answer.
    virtual void run() = 0;
    // CHECKs the answer of the last run against a plain loop.
    virtual void check() const = 0;
    // How many anchors, boxes, candidates, … the operation goes through.
    [[nodiscard]] virtual std::size_t items() const = 0;
    // FNV-1a of the bytes of the answer.
    [[nodiscard]] virtual std::uint64_t hash() const = 0;
};

struct Entry {
    const char* name;
    const char* unit;  // what the items are
    std::unique_ptr<Operation> (*make)();
};

// In the order in which they are reported.
const std::vector<Entry>& operations();

inline constexpr std::uint64_t kEmptyHash = 0xcbf29ce484222325U;

template <typename T>
std::uint64_t hash_of(const std::vector<T>& values, std::uint64_t hash = kEmptyHash) {
    std::vector<unsigned char> bytes(values.size() * sizeof(T));
    if (!bytes.empty()) std::memcpy(bytes.data(), values.data(), bytes.size());
    for (const unsigned char byte : bytes) hash = (hash ^ byte) * 0x100000001b3U;
    return hash;
}

// By file.
std::unique_ptr<Operation> make_anchors();
std::unique_ptr<Operation> make_decode_boxes();
std::unique_ptr<Operation> make_decode_landmarks();
std::unique_ptr<Operation> make_nms_crowd();
std::unique_ptr<Operation> make_nms_sparse();
std::unique_ptr<Operation> make_postprocess();
std::unique_ptr<Operation> make_postprocess_scan();
std::unique_ptr<Operation> make_matching();
std::unique_ptr<Operation> make_vote();
std::unique_ptr<Operation> make_network();

}  // namespace bench
