// temporal_graph._native: the live graph and the sampler for Python. Errors are plain ones here; the Python faces
// translate them into the package's tree.
#include "module.hpp"

#include <nanobind/stl/string.h>

#include "layout.hpp"

namespace nb = nanobind;
using namespace nowgraph;

NB_MODULE(_native, module) {
  // A process that is told to end a second time leaves its objects as they are; what nanobind then lists helps nobody.
  nb::set_leak_warnings(false);
  module.doc() = "The native core of nowgraph: the arena, its write and read faces, and the sampler.";
  module.attr("LAYOUT_VERSION") = LAYOUT_VERSION;
  module.attr("READER_SLOTS") = READER_SLOTS;
  nb::exception<ArenaFull>(module, "ArenaFull", PyExc_MemoryError);
  const auto refused = nb::exception<ArenaRefused>(module, "ArenaRefused", PyExc_RuntimeError);
  nb::exception<ImageRefused>(module, "ImageRefused", refused);
  bind_graph(module);
  bind_view(module);
  bind_sampler(module);
  bind_co_visits(module);
}
