// Binds the arena and the read face.
#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <memory>

#include "changes.hpp"
#include "module.hpp"
#include "module_arrays.hpp"
#include "versions.hpp"
#include "view.hpp"

namespace nb = nanobind;
using namespace nowgraph;

namespace {

nb::object key_part(const char*& at) {
  const char tag = *at++;
  if (tag == 2) {
    const i64 number = load<i64>(at);
    at += 8;
    return nb::int_(number);
  }
  const u32 size = load<u32>(at);
  nb::str text(at + 4, size);
  at += 4 + size;
  return text;
}

// None for a row that was erased.
nb::object key_object(const Reader& reader, const TableHeader& table, u32 row) {
  if (Reader::version_head(table, reader.row(table, row)).load(std::memory_order_acquire) == ERASED) return nb::none();
  const char* key = reader.key(table, row);
  if (table.key_kind == KeyKind::integer) return nb::int_(load<i64>(key));
  const std::string_view bytes = reader.string_at(load<u64>(key));
  if (table.key_parts == 1) return nb::str(bytes.data(), bytes.size());
  nb::list parts;
  const char* at = bytes.data();
  for (u32 part = 0; part < table.key_parts; ++part) parts.append(key_part(at));
  return nb::tuple(parts);
}

// NONE for a key that is not of the table's kind: it cannot be in the graph.
u32 find_row(const Reader& reader, const TableHeader& table, nb::handle key) {
  if (table.key_parts > 1) {
    if (!nb::isinstance<nb::tuple>(key) && !nb::isinstance<nb::list>(key)) return NONE;
    const nb::sequence parts = nb::cast<nb::sequence>(key);
    if (nb::len(parts) != table.key_parts) return NONE;
    std::string bytes;
    for (u32 p = 0; p < table.key_parts; ++p) {
      const nb::object part = parts[p];
      if (nb::isinstance<nb::str>(part) != (table.key_part_is_text[p] != 0)) return NONE;
      bytes.push_back(table.key_part_is_text[p] ? 4 : 2);
      if (table.key_part_is_text[p]) {
        const std::string text = nb::cast<std::string>(part);
        const u32 size = static_cast<u32>(text.size());
        bytes.append(reinterpret_cast<const char*>(&size), 4).append(text);
      } else {
        const i64 number = nb::cast<i64>(part);
        bytes.append(reinterpret_cast<const char*>(&number), 8);
      }
    }
    return reader.find(table, std::string_view(bytes));
  }
  if (nb::isinstance<nb::tuple>(key) && nb::len(key) == 1) return find_row(reader, table, key[0]);
  if (table.key_kind == KeyKind::integer)
    return nb::isinstance<nb::str>(key) ? NONE : reader.find(table, nb::cast<i64>(key));
  return nb::isinstance<nb::str>(key) ? reader.find(table, std::string_view(nb::cast<std::string>(key))) : NONE;
}

Out<i64> row_index(View& view, u32 table_index, nb::sequence keys) {
  const Pinned pinned(view.reader);
  const TableHeader& table = view.reader.table(table_index);
  std::vector<i64> rows;
  rows.reserve(nb::len(keys));
  for (nb::handle key : keys) {
    const u32 row = find_row(view.reader, table, key);
    rows.push_back(row == NONE || row >= pinned.snapshot.row_limit[table_index] ? -1 : static_cast<i64>(row));
  }
  return to_array(std::move(rows));
}

Out<i64> row_index_of_integers(View& view, u32 table_index, In<i64> keys) {
  const Pinned pinned(view.reader);
  const TableHeader& table = view.reader.table(table_index);
  if (table.key_kind != KeyKind::integer) throw nb::value_error("the table's key is not an integer");
  std::vector<i64> rows(keys.size());
  for (std::size_t i = 0; i < keys.size(); ++i) {
    const u32 row = view.reader.find(table, keys.data()[i]);
    rows[i] = row == NONE || row >= pinned.snapshot.row_limit[table_index] ? -1 : static_cast<i64>(row);
  }
  return to_array(std::move(rows));
}

nb::list keys_of(View& view, u32 table_index, In<i64> rows) {
  const Pinned pinned(view.reader);
  const TableHeader& table = view.reader.table(table_index);
  nb::list keys;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const i64 row = rows.data()[i];
    if (row >= static_cast<i64>(pinned.snapshot.row_limit[table_index])) throw nb::index_error("no such row");
    keys.append(row < 0 ? nb::none() : key_object(view.reader, table, static_cast<u32>(row)));
  }
  return keys;
}

// Rows whose key was erased, ascending.
Out<i64> erased_rows(View& view, u32 table_index) {
  const Pinned pinned(view.reader);
  const TableHeader& table = view.reader.table(table_index);
  std::vector<i64> rows;
  for (u32 row = 0; row < pinned.snapshot.row_limit[table_index]; ++row)
    if (Reader::version_head(table, view.reader.row(table, row)).load(std::memory_order_acquire) == ERASED) rows.push_back(row);
  return to_array(std::move(rows));
}

nb::list strings(View& view, u32 table_index, u32 column_index, In<i32> codes) {
  const Pinned pinned(view.reader);  // a string that no cell holds any more is overwritten
  const ColumnHeader& column = view.reader.columns(view.reader.table(table_index))[column_index];
  if (column.kind != Kind::coded) throw nb::value_error("the column has no dictionary");
  const Dictionary& dictionary = *view.reader.dictionary(column);
  const i64 size = dictionary.size.load(std::memory_order_acquire);
  nb::list out;
  for (std::size_t i = 0; i < codes.size(); ++i) {
    const i32 code = codes.data()[i];
    if (code >= size) throw nb::index_error("no such code");
    if (code <= 0) {
      out.append(nb::none());
      continue;
    }
    const std::string_view text = view.reader.string_of(dictionary, static_cast<u32>(code));
    out.append(nb::str(text.data(), text.size()));
  }
  return out;
}

nb::tuple times(View& view, u32 table_index) {
  const Pinned pinned(view.reader);
  const TableHeader& table = view.reader.table(table_index);
  std::vector<i64> event, known;
  std::vector<Reader::VersionKey> versions;
  for (u32 row = 0; row < pinned.snapshot.row_limit[table_index]; ++row) {
    const char* record = view.reader.row(table, row);
    view.reader.versions(table, record, pinned.snapshot.sequence, versions);
    event.push_back(versions.empty() ? ALWAYS_US : versions.front().event_time_us);
    known.push_back(versions.empty() ? ALWAYS_US : versions.front().known_time_us);
  }
  return nb::make_tuple(to_array(std::move(event)), to_array(std::move(known)));
}

// Row, event time, validity from and to, deleted, parents, then cells: numerical, coded, boolean, timestamp, embedding.
nb::tuple states(View& view, u32 table_index) {
  RowStates found = [&] {
    nb::gil_scoped_release released;
    Reader own(*view.arena);  // the view's is for calls that hold Python's lock
    const Pinned pinned(own);
    return row_states(own, pinned.snapshot, table_index);
  }();
  const TableHeader& table = view.reader.table(table_index);
  const std::size_t rows = found.row.size();
  const auto width = [&](Kind kind) { return std::size_t{table.kind_counts[static_cast<u32>(kind)]}; };
  GatheredTable& cells = found.cells;
  return nb::make_tuple(moved(found.row), moved(found.event_time_us), moved(found.valid_from_us),
                        moved(found.valid_to_us), moved(found.deleted), moved(found.parents, rows, table.link_count),
                        moved(cells.numerical, rows, width(Kind::numerical)), moved(cells.coded, rows, width(Kind::coded)),
                        moved(cells.boolean, rows, width(Kind::boolean)),
                        moved(cells.timestamp, rows, width(Kind::timestamp)),
                        moved(cells.embedding, rows, width(Kind::embedding)));
}

// Row, event time, visible time, parents, bare.
nb::tuple arrivals(RowArrivals& found, u32 links) {
  const std::size_t rows = found.row.size();
  return nb::make_tuple(moved(found.row), moved(found.event_time_us), moved(found.visible_time_us),
                        moved(found.parents, rows, links), moved(found.bare));
}

nb::tuple rows_from(View& view, u32 table_index, u32 first) {
  const TableHeader& table = view.reader.table(table_index);
  RowArrivals found;
  if (first < Pinned(view.reader).snapshot.row_limit[table_index]) {
    nb::gil_scoped_release released;
    Reader own(*view.arena);  // the view's is for calls that hold Python's lock
    const Pinned pinned(own);
    for (u32 row = first; row < pinned.snapshot.row_limit[table_index]; ++row)
      found.add(own, pinned.snapshot, table, row);
  }
  return arrivals(found, table.link_count);
}

nb::tuple rows_at(View& view, u32 table_index, In<i64> rows) {
  const TableHeader& table = view.reader.table(table_index);
  const Pinned pinned(view.reader);
  RowArrivals found;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const i64 row = rows.data()[i];
    if (row < 0 || row >= static_cast<i64>(pinned.snapshot.row_limit[table_index])) throw nb::index_error("no such row");
    found.add(view.reader, pinned.snapshot, table, static_cast<u32>(row));
  }
  return arrivals(found, table.link_count);
}

nb::tuple mark_tuple(const ChangeMark& mark) { return nb::make_tuple(mark.changes, mark.late, mark.unit, mark.sequence); }

// Row, visible time, and the mark for the next call; None: since ever.
nb::tuple changed_rows_since(View& view, u32 table_index, std::optional<std::tuple<u32, u16, u32, u64>> since) {
  const TableHeader& table = view.reader.table(table_index);
  RowChanges found;
  if (since)
    found.mark = {std::get<0>(*since), std::get<1>(*since), std::get<2>(*since), std::get<3>(*since)};
  else
    found.mark = first_mark(table);
  if (has_changed(table, found.mark)) {
    nb::gil_scoped_release released;
    Reader own(*view.arena);  // the view's is for calls that hold Python's lock
    const Pinned pinned(own);
    changed_rows(own, pinned.snapshot, table, pinned.snapshot.row_limit[table_index], found);
  }
  return nb::make_tuple(moved(found.row), moved(found.visible_time_us), mark_tuple(found.mark));
}

nb::object cell_object(const Reader& reader, const TableHeader& table, u32 index, const char* payload) {
  if (payload == nullptr) return nb::none();
  if (index >= table.column_count) {
    const LinkHeader& link = reader.link(table.links[index - table.column_count]);
    nb::object key = key_object(reader, reader.table(link.parent), load<u32>(payload));
    return nb::isinstance<nb::tuple>(key) ? nb::list(key) : key;
  }
  const ColumnHeader& column = reader.columns(table)[index];
  switch (column.kind) {
    case Kind::numerical: return nb::float_(load<double>(payload));
    case Kind::timestamp: return nb::int_(load<i64>(payload));
    case Kind::boolean: return nb::bool_(load<u8>(payload) == 1);
    case Kind::coded: {
      const std::string_view text = reader.string_of(*reader.dictionary(column), load<u32>(payload));
      nb::str whole(text.data(), text.size());
      if (!column.joined) return whole;
      return text.empty() ? nb::list() : nb::list(whole.attr("split")("\x1f"));
    }
    case Kind::embedding: {
      nb::list out;
      for (u32 i = 0; i < column.dim; ++i) out.append(nb::float_(load<float>(payload + 4 * i)));
      return out;
    }
  }
  return nb::none();
}

// One row's versions as Python values, oldest first; None for a row that retention dropped.
nb::object row_versions(View& view, u32 table_index, u32 row) {
  const Pinned pinned(view.reader);
  const Reader& reader = view.reader;
  const TableHeader& table = reader.table(table_index);
  const char* record = reader.row(table, row);
  if (is_dropped(Reader::version_head(table, record).load(std::memory_order_acquire))) return nb::none();
  static const char* const names[] = {"", "insert", "upsert", "delete"};
  std::vector<Reader::VersionKey> versions;
  reader.versions(table, record, UINT64_MAX, versions);
  nb::list out;
  for (const auto& version : versions) {
    nb::dict cells;
    const bool insert = version.operation == Operation::insert;
    for (u32 index = 0; index < table.column_count + table.link_count; ++index) {
      const CellRef cell = version.unit == NO_VERSION ? CellRef{reader.inline_cell(table, record, index), true}
                                                      : reader.version_cell(table, *reader.version(version.unit), index);
      if (cell.set && (cell.payload != nullptr || !insert))
        cells[view.catalog.table(table_index).cells[index].c_str()] = cell_object(reader, table, index, cell.payload);
    }
    out.append(nb::make_tuple(version.event_time_us, version.known_time_us, names[static_cast<int>(version.operation)], cells));
  }
  return out;
}

// The children of a parent by one link, for all of time: (open time, key), in order.
nb::list row_children(View& view, u32 link_index, u32 row) {
  const Pinned pinned(view.reader);
  const Reader& reader = view.reader;
  const LinkHeader& link = reader.link(link_index);
  const TableHeader& child = reader.table(link.child);
  const List list = reader.list(Reader::list_word_of(reader.row(reader.table(link.parent), row), link.word_in_parent));
  nb::list out;
  for (u32 i = 0; i < list.count; ++i) {
    const Entry& entry = reader.at(list, i);
    if (entry_holds(reader, link, row, entry))
      out.append(nb::make_tuple(reader.open_time_us(child, entry), key_object(reader, child, reader.child(entry))));
  }
  return out;
}

}  // namespace

void bind_view(nb::module_& module) {
  nb::class_<Arena>(module, "Arena")
      .def_static("attach", [](const std::string& path, const std::string& columns) {
        return std::make_shared<Arena>(path, 0, false, columns);
      }, nb::arg("path"), nb::arg("columns"))
      .def_prop_ro("bytes", &Arena::bytes)
      .def_prop_ro("generation", [](const Arena& arena) { return arena.header().generation; })
      .def_prop_ro("fingerprint", [](const Arena& arena) {
        return std::string(arena.header().fingerprint, ::strnlen(arena.header().fingerprint, 64));
      });
  nb::class_<Position>(module, "Position")
      .def_ro("generation", &Position::generation)
      .def_ro("sequence", &Position::sequence)
      .def_ro("watermark_us", &Position::watermark_us)
      .def_ro("topics", &Position::topics)
      .def_ro("partitions", &Position::partitions)
      .def_ro("offsets", &Position::offsets);
  nb::class_<View>(module, "View")
      .def(nb::init<std::shared_ptr<Arena>>(), nb::arg("arena"))
      .def("position", &View::position)
      .def("evictions", [](const View& view) { return view.reader.graph().evictions.load(); })
      .def("erased", [](const View& view, u32 table) {
        const ErasedCounts& counts = view.reader.table(table).erased;
        return nb::make_tuple(counts.rows.load(), counts.versions.load(), counts.links.load(), counts.strings.load());
      }, nb::arg("table"))
      .def("erased_rows", &erased_rows, nb::arg("table"))
      .def("erasures", [](const View& view) { return view.reader.graph().erasures.load(); })
      .def("overwrites_due", [](const View& view) { return view.reader.graph().overwrites_due.load(); })
      .def("readers", [](const View& view) { return view.arena->slots_taken(); })
      .def("writer_pulse_us", [](const View& view) { return view.reader.graph().writer_pulse_us.load(); })
      .def("row_count", [](View& view, u32 table) { return Pinned(view.reader).snapshot.row_limit[table]; }, nb::arg("table"))
      .def("row_index", &row_index, nb::arg("table"), nb::arg("keys"))
      .def("row_index_of_integers", &row_index_of_integers, nb::arg("table"), nb::arg("keys"))
      .def("keys", &keys_of, nb::arg("table"), nb::arg("rows"))
      .def("strings", &strings, nb::arg("table"), nb::arg("column"), nb::arg("codes"))
      .def("dictionary_size", [](View& view, u32 table, u32 column) {
        const ColumnHeader& header = view.reader.columns(view.reader.table(table))[column];
        if (header.kind != Kind::coded) throw nb::value_error("the column has no dictionary");
        return view.reader.dictionary(header)->size.load(std::memory_order_acquire);
      }, nb::arg("table"), nb::arg("column"))
      .def("outcomes", [](View& view, u32 table, u32 column) {
        Outcomes out = view.outcomes(table, column);
        return nb::make_tuple(to_array(std::move(out.row)), to_array(std::move(out.event_time_us)),
                              to_array(std::move(out.value)), to_array(std::move(out.visible_time_us)));
      }, nb::arg("table"), nb::arg("column"))
      .def("times", &times, nb::arg("table"))
      .def("states", &states, nb::arg("table"))
      .def("rows_from", &rows_from, nb::arg("table"), nb::arg("first"))
      .def("rows_at", &rows_at, nb::arg("table"), nb::arg("rows"))
      .def("changed_rows", &changed_rows_since, nb::arg("table"), nb::arg("since").none())
      .def("row_versions", &row_versions, nb::arg("table"), nb::arg("row"))
      .def("row_children", &row_children, nb::arg("link"), nb::arg("row"));
}
