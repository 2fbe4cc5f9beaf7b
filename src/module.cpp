#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string>
#include <vector>

#include "register.hpp"
#include "retinaface/cpu.hpp"

namespace py = pybind11;

PYBIND11_MODULE(_core, module, py::mod_gil_not_used()) {
    // A wrong RETINAFACE_FAST_SIMD is an error of the import, not a surprise in the first call.
    retinaface::active_simd_level();

    module.doc() = "The C++ core. Its functions are documented in retinaface_fast.ops.";
    module.def("simd_level",
               []() { return std::string(retinaface::simd_name(retinaface::active_simd_level())); });
    module.def("simd_levels", []() {
        std::vector<std::string> names;
        for (const retinaface::SimdLevel level : retinaface::available_simd_levels()) {
            names.emplace_back(retinaface::simd_name(level));
        }
        return names;
    });
    retinaface::python::register_assignment(module);
    retinaface::python::register_engine(module);
    retinaface::python::register_matching(module);
    retinaface::python::register_ops(module);
    retinaface::python::register_postprocess(module);
}
