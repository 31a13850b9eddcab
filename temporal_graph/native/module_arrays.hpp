// numpy arrays for the bindings: results are moved out of vectors without a copy, arguments are taken as they are.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <vector>

#include "sampler_sample.hpp"

namespace nowgraph {

template <class T>
using In = nanobind::ndarray<const T, nanobind::ndim<1>, nanobind::c_contig, nanobind::device::cpu>;
template <class T>
using Out = nanobind::ndarray<nanobind::numpy, T, nanobind::ndim<1>>;

template <class T>
Out<T> to_array(std::vector<T>&& values) {
  auto* owned = new std::vector<T>(std::move(values));
  nanobind::capsule owner(owned, [](void* p) noexcept { delete static_cast<std::vector<T>*>(p); });
  return Out<T>(owned->data(), {owned->size()}, owner);
}

// A column's memory becomes the array's.
template <class T>
Out<T> moved(Column<T>& column) {
  auto* owned = new Column<T>(std::move(column));
  nanobind::capsule owner(owned, [](void* p) noexcept { delete static_cast<Column<T>*>(p); });
  return Out<T>(owned->data(), {owned->size()}, owner);
}
template <class T>
nanobind::ndarray<nanobind::numpy, T, nanobind::ndim<2>> moved(Column<T>& column, std::size_t rows, std::size_t width) {
  auto* owned = new Column<T>(std::move(column));
  nanobind::capsule owner(owned, [](void* p) noexcept { delete static_cast<Column<T>*>(p); });
  return nanobind::ndarray<nanobind::numpy, T, nanobind::ndim<2>>(owned->data(), {rows, width}, owner);
}

}  // namespace nowgraph
