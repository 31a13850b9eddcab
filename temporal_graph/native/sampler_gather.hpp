// The cells of sampled rows, in the version that each seed's cut-off sees, appended to one row-major block per kind.
#pragma once

#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "sampler_rows.hpp"
#include "sampler_sample.hpp"
#include "sampler_seed.hpp"

namespace nowgraph {

class Gather {
 public:
  explicit Gather(const Reader& reader) : reader_(reader) {
    for (u32 index = 0; index < reader.graph().table_count; ++index) {
      const TableHeader& table = reader.table(index);
      Layout layout{&table, {}, {}, table.column_count};
      const ColumnHeader* columns = reader.columns(table);
      for (u32 kind = 0; kind < KINDS; ++kind) layout.count[kind] = table.kind_counts[kind];
      for (u32 i = 0; i < table.column_count; ++i)
        if (columns[i].kind_index == 0) layout.offset[static_cast<u32>(columns[i].kind)] = columns[i].offset;
      layouts_.push_back(layout);
    }
  }

  // A row as it stands at the cut-off; version -1 (bare) has no cells.
  NOWGRAPH_INLINE void row(GatheredTable& out, u32 table, i32 node, const char* record, i32 version,
                           const Snapshot& snapshot, i64 cutoff_time_us) const {
    const Layout& layout = layouts_[table];
    out.node.push(node);
    if (layout.columns == 0) return;
    if (version < 0) {
      nulls(out, layout);
    } else if (Reader::version_head(*layout.table, record).load(std::memory_order_acquire) == NO_VERSION) {
      plain(out, layout, record);
    } else {
      nulls(out, layout);
      for (u32 i = 0; i < layout.columns; ++i)
        put(out, layout, i, reader_.cell(snapshot, *layout.table, record, i, cutoff_time_us));
    }
  }

  // A seed that is a row of the graph: its first version, the outcome null.
  void first_version(GatheredTable& out, i32 node, const Seed& seed, const Snapshot& snapshot) const {
    const Layout& layout = layouts_[seed.table];
    out.node.push(node);
    if (layout.columns == 0) return;
    nulls(out, layout);
    if (seed.record == nullptr || seed.version < 0) return;
    const ColumnHeader* columns = reader_.columns(*layout.table);
    for (u32 i = 0; i < layout.columns; ++i)
      if (!columns[i].is_outcome) put(out, layout, i, reader_.first_cell(snapshot, *layout.table, seed.record, i));
  }

  // A row that is an event: its own cells, the outcome null where it is a seed. A string that the graph has never
  // stored has no code: it goes to `unseen`, and its cell is -1 minus its place there.
  void event(GatheredTable& out, std::vector<std::string>& unseen, u32 table, i32 node, const RowChange& change,
             bool outcome_too) const {
    const Layout& layout = layouts_[table];
    out.node.push(node);
    if (layout.columns == 0) return;
    nulls(out, layout);
    const ColumnHeader* columns = reader_.columns(*layout.table);
    for (const CellValue& cell : change.cells) {
      if (cell.index >= layout.columns || cell.is_null) continue;
      if (columns[cell.index].is_outcome && !outcome_too) continue;
      const ColumnHeader& column = columns[cell.index];
      u64 code;  // as wide as the widest cell, which is all that `put` could read
      switch (column.kind) {
        case Kind::numerical: put(out, layout, cell.index, reinterpret_cast<const char*>(&cell.number)); break;
        case Kind::timestamp: put(out, layout, cell.index, reinterpret_cast<const char*>(&cell.integer)); break;
        case Kind::embedding: put(out, layout, cell.index, cell.vector); break;
        case Kind::boolean: put(out, layout, cell.index, reinterpret_cast<const char*>(&cell.boolean)); break;
        case Kind::coded:
          code = reader_.find_code(*reader_.dictionary(column), cell.text);
          if (code == NONE) {
            code = static_cast<u64>(-1 - static_cast<i64>(unseen.size()));
            unseen.emplace_back(cell.text);
          }
          put(out, layout, cell.index, reinterpret_cast<const char*>(&code));
          break;
      }
    }
  }

  // ---- for rows that are not nodes of a sample: one more line of cells, without a node ----------------------------
  void inline_cells(GatheredTable& out, u32 table, const char* record) const { plain(out, layouts_[table], record); }
  void null_cells(GatheredTable& out, u32 table) const { nulls(out, layouts_[table]); }
  // Overwrites a null cell of the last line; a null payload leaves it.
  void set_cell(GatheredTable& out, u32 table, u32 index, const char* payload) const {
    put(out, layouts_[table], index, payload);
  }

  // How many columns of a kind a table has; an embedding counts its components.
  u32 width(u32 table, Kind kind) const { return layouts_[table].count[static_cast<u32>(kind)]; }

 private:
  static constexpr u32 KINDS = 5;
  struct Layout {
    const TableHeader* table;
    u32 count[KINDS];
    u32 offset[KINDS];  // of the first cell of each kind in the record; the others follow it
    u32 columns;

    u32 of(Kind kind) const { return count[static_cast<u32>(kind)]; }
  };

  template <class T>
  static NOWGRAPH_INLINE void copy(Column<T>& out, const Layout& layout, Kind kind, const char* record) {
    const u32 count = layout.of(kind);
    if (count != 0) std::memcpy(out.extend(count), record + layout.offset[static_cast<u32>(kind)], count * sizeof(T));
  }
  static void plain(GatheredTable& out, const Layout& layout, const char* record) {
    copy(out.numerical, layout, Kind::numerical, record);
    copy(out.timestamp, layout, Kind::timestamp, record);
    copy(out.coded, layout, Kind::coded, record);
    copy(out.embedding, layout, Kind::embedding, record);
    copy(out.boolean, layout, Kind::boolean, record);
  }
  static void nulls(GatheredTable& out, const Layout& layout) {
    std::fill_n(out.numerical.extend(layout.of(Kind::numerical)), layout.of(Kind::numerical),
                std::numeric_limits<double>::quiet_NaN());
    std::fill_n(out.timestamp.extend(layout.of(Kind::timestamp)), layout.of(Kind::timestamp), NULL_TIMESTAMP_US);
    std::fill_n(out.coded.extend(layout.of(Kind::coded)), layout.of(Kind::coded), static_cast<i32>(CODE_NULL));
    std::fill_n(out.embedding.extend(layout.of(Kind::embedding)), layout.of(Kind::embedding),
                std::numeric_limits<float>::quiet_NaN());
    std::fill_n(out.boolean.extend(layout.of(Kind::boolean)), layout.of(Kind::boolean), BOOLEAN_NULL);
  }
  // Overwrites a null of the row that was appended last; a null payload leaves it.
  void put(GatheredTable& out, const Layout& layout, u32 index, const char* payload) const {
    if (payload == nullptr) return;
    const ColumnHeader& column = reader_.columns(*layout.table)[index];
    const u32 from_end = layout.of(column.kind) - column.kind_index;
    switch (column.kind) {
      case Kind::numerical: out.numerical[out.numerical.size() - from_end] = load<double>(payload); break;
      case Kind::timestamp: out.timestamp[out.timestamp.size() - from_end] = load<i64>(payload); break;
      case Kind::coded: out.coded[out.coded.size() - from_end] = load<i32>(payload); break;
      case Kind::boolean: out.boolean[out.boolean.size() - from_end] = load<u8>(payload); break;
      case Kind::embedding:
        std::memcpy(&out.embedding[out.embedding.size() - from_end], payload, column.dim * sizeof(float));
        break;
    }
  }

  const Reader& reader_;
  std::vector<Layout> layouts_;
};

}  // namespace nowgraph
