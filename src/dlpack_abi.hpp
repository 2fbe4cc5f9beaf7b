// The part of DLPack's C ABI that crosses a capsule: the structures as its specification lays them out, and
// nothing of its library.
#pragma once

#include <cstdint>

namespace retinaface::python::dlpack {

inline constexpr std::int32_t kCpu = 1;
inline constexpr std::int32_t kCuda = 2;

inline constexpr std::uint8_t kInt = 0;
inline constexpr std::uint8_t kUint = 1;
inline constexpr std::uint8_t kFloat = 2;

// A capsule that nobody has taken over yet, and what it is called from then on.
inline constexpr const char* kFresh = "dltensor";
inline constexpr const char* kUsed = "used_dltensor";

struct Device {
    std::int32_t type;
    std::int32_t id;
};

struct DataType {
    std::uint8_t code;
    std::uint8_t bits;
    std::uint16_t lanes;
};

struct Tensor {
    void* data;
    Device device;
    std::int32_t ndim;
    DataType dtype;
    std::int64_t* shape;
    std::int64_t* strides;  // in elements; null: row after row
    std::uint64_t byte_offset;
};

struct ManagedTensor {
    Tensor tensor;
    void* context;
    void (*deleter)(ManagedTensor*);
};

}  // namespace retinaface::python::dlpack
