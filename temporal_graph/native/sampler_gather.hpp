// The cells of sampled rows, in the version that each seed's cut-off sees, appended to one row-major block per kind.
//
// Rows whose cells lie on disk are only noted; `fill` asks the disk for all of a batch's at once and then reads them, so
// that it is waited for once a batch and not once a row.
#pragma once

#include <sys/resource.h>

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
      Layout layout{&table, {}, {}, table.column_count, table.columns_on_disk};
      const ColumnHeader* columns = reader.columns(table);
      for (u32 kind = 0; kind < KINDS; ++kind) layout.count[kind] = table.kind_counts[kind];
      for (u32 i = 0; i < table.column_count; ++i)
        if (columns[i].kind_index == 0) layout.offset[static_cast<u32>(columns[i].kind)] = columns[i].offset;
      layouts_.push_back(layout);
      any_columns_ |= layout.columns != 0;
    }
  }

  // Whether any table has columns. Of one that has none the nodes are not gathered: who asks finds them by their table.
  bool any_columns() const { return any_columns_; }

  // Forgets what was noted for a sample that was not filled.
  void clear() { noted_.clear(); }

  // What the rows that were noted have, into the places that they were given.
  void fill(std::vector<GatheredTable>& gathered, const Snapshot& snapshot) {
    if (noted_.empty()) return;
    const i64 before = disk_reads();
    if (disk_was_read_)
      for (const Noted& one : noted_) reader_.ask_cells(*layouts_[one.table].table, one.record);
    for (std::size_t i = 0; i < noted_.size(); ++i) {
      if (i + AHEAD < noted_.size()) prefetch_cells(noted_[i + AHEAD]);
      const Noted& one = noted_[i];
      const Layout& layout = layouts_[one.table];
      GatheredTable& out = gathered[one.table];
      if (one.arrival)
        first_cells(out, layout, one.line, one.record, snapshot);
      else if (Reader::version_head(*layout.table, one.record).load(std::memory_order_acquire) == NO_VERSION)
        copy_line(out, layout, one.line, reader_.cells(*layout.table, one.record));
      else
        cells_at(out, layout, one.line, one.record, snapshot, one.cutoff_time_us);
    }
    noted_.clear();
    disk_was_read_ = disk_reads() != before;
  }

  // A row as it stands at the cut-off; version -1 (bare) has no cells.
  NOWGRAPH_INLINE void row(GatheredTable& out, u32 table, i32 node, const char* record, i32 version,
                           const Snapshot& snapshot, i64 cutoff_time_us) {
    const Layout& layout = layouts_[table];
    if (layout.columns == 0) return;
    out.node.push(node);
    if (version < 0) {
      nulls(out, layout);
    } else if (__builtin_expect(layout.on_disk, 0)) {
      note(out, layout, table, record, cutoff_time_us, false);
    } else if (Reader::version_head(*layout.table, record).load(std::memory_order_acquire) == NO_VERSION) {
      plain(out, layout, record);
    } else {
      nulls(out, layout);
      cells_at(out, layout, LAST, record, snapshot, cutoff_time_us);
    }
  }

  // A seed that is a row of the graph: its first version, the outcome null.
  void first_version(GatheredTable& out, i32 node, const Seed& seed, const Snapshot& snapshot) {
    const Layout& layout = layouts_[seed.table];
    if (layout.columns == 0) return;
    out.node.push(node);
    if (seed.record != nullptr && seed.version >= 0 && layout.on_disk) {
      note(out, layout, seed.table, seed.record, seed.cutoff_time_us, true);
      return;
    }
    nulls(out, layout);
    if (seed.record != nullptr && seed.version >= 0) first_cells(out, layout, LAST, seed.record, snapshot);
  }

  // A row that is an event: its own cells, the outcome null where it is a seed. A string that the graph has never
  // stored has no code: it goes to `unseen`, and its cell is -1 minus its place there.
  void event(GatheredTable& out, std::vector<std::string>& unseen, u32 table, i32 node, const RowChange& change,
             bool outcome_too) const {
    const Layout& layout = layouts_[table];
    if (layout.columns == 0) return;
    out.node.push(node);
    nulls(out, layout);
    const ColumnHeader* columns = reader_.columns(*layout.table);
    for (const CellValue& cell : change.cells) {
      if (cell.index >= layout.columns || cell.is_null) continue;
      if (columns[cell.index].is_outcome && !outcome_too) continue;
      const ColumnHeader& column = columns[cell.index];
      u64 code;  // as wide as the widest cell, which is all that `put` could read
      switch (column.kind) {
        case Kind::numerical: put(out, layout, cell.index, reinterpret_cast<const char*>(&cell.number), LAST); break;
        case Kind::timestamp: put(out, layout, cell.index, reinterpret_cast<const char*>(&cell.integer), LAST); break;
        case Kind::embedding: put(out, layout, cell.index, cell.vector, LAST); break;
        case Kind::boolean: put(out, layout, cell.index, reinterpret_cast<const char*>(&cell.boolean), LAST); break;
        case Kind::coded:
          code = reader_.find_code(*reader_.dictionary(column), cell.text);
          if (code == NONE) {
            code = static_cast<u64>(-1 - static_cast<i64>(unseen.size()));
            unseen.emplace_back(cell.text);
          }
          put(out, layout, cell.index, reinterpret_cast<const char*>(&code), LAST);
          break;
      }
    }
  }

  // ---- for rows that are not nodes of a sample: one more line of cells, without a node ----------------------------
  void inline_cells(GatheredTable& out, u32 table, const char* record) const {
    plain(out, layouts_[table], reader_.cells(*layouts_[table].table, record));
  }
  void null_cells(GatheredTable& out, u32 table) const { nulls(out, layouts_[table]); }
  // Overwrites a null cell of the last line; a null payload leaves it.
  void set_cell(GatheredTable& out, u32 table, u32 index, const char* payload) const {
    put(out, layouts_[table], index, payload, LAST);
  }

  // How many columns of a kind a table has; an embedding counts its components.
  u32 width(u32 table, Kind kind) const { return layouts_[table].count[static_cast<u32>(kind)]; }

 private:
  static constexpr u32 KINDS = 5;
  static constexpr std::size_t AHEAD = 8;  // rows
  static constexpr std::size_t LAST = SIZE_MAX;  // the line that was appended last
  struct Layout {
    const TableHeader* table;
    u32 count[KINDS];
    u32 offset[KINDS];  // of the first cell of each kind in the record or slot; the others follow it
    u32 columns;
    bool on_disk;

    u32 of(Kind kind) const { return count[static_cast<u32>(kind)]; }
  };

  // A row whose cells are read later, into the line that it has from now on.
  struct Noted {
    u32 table;
    u32 line;
    const char* record;
    i64 cutoff_time_us;
    bool arrival;  // its first version, else as it stands at the cut-off
  };

  void note(GatheredTable& out, const Layout& layout, u32 table, const char* record, i64 cutoff_time_us, bool arrival) {
    nulls(out, layout);
    noted_.push_back({table, static_cast<u32>(out.node.size() - 1), record, cutoff_time_us, arrival});
  }

  // The first lines of a slot, from where the processor goes on by itself. Inlined by force, or GCC 12 drops it.
  NOWGRAPH_INLINE void prefetch_cells(const Noted& noted) const {
    const TableHeader& table = *layouts_[noted.table].table;
    const char* cells = reader_.cells(table, noted.record);
    for (u32 at = 0; at < std::min(table.slots.stride, 256u); at += 64) prefetch(cells + at);
  }

  // Of this thread, the asynchronous ones counted: asking where everything is in memory is a waste.
  static i64 disk_reads() {
    rusage usage{};
    ::getrusage(RUSAGE_THREAD, &usage);
    return usage.ru_majflt + usage.ru_inblock;
  }

  void cells_at(GatheredTable& out, const Layout& layout, std::size_t line, const char* record,
                const Snapshot& snapshot, i64 cutoff_time_us) const {
    const u32 head = Reader::version_head(*layout.table, record).load(std::memory_order_acquire);
    for (u32 i = 0; i < layout.columns; ++i)
      put(out, layout, i, reader_.cell(snapshot, *layout.table, record, head, i, cutoff_time_us), line);
  }
  void first_cells(GatheredTable& out, const Layout& layout, std::size_t line, const char* record,
                   const Snapshot& snapshot) const {
    const ColumnHeader* columns = reader_.columns(*layout.table);
    const u32 head = Reader::version_head(*layout.table, record).load(std::memory_order_acquire);
    for (u32 i = 0; i < layout.columns; ++i)
      if (!columns[i].is_outcome) put(out, layout, i, reader_.first_cell(snapshot, *layout.table, record, head, i), line);
  }

  template <class T>
  static NOWGRAPH_INLINE void copy(T* to, const Layout& layout, Kind kind, const char* cells) {
    const u32 count = layout.of(kind);
    if (count != 0) std::memcpy(to, cells + layout.offset[static_cast<u32>(kind)], count * sizeof(T));
  }
  template <class T>
  static NOWGRAPH_INLINE void append(Column<T>& out, const Layout& layout, Kind kind, const char* cells) {
    if (layout.of(kind) != 0) copy(out.extend(layout.of(kind)), layout, kind, cells);
  }
  static void plain(GatheredTable& out, const Layout& layout, const char* cells) {
    append(out.numerical, layout, Kind::numerical, cells);
    append(out.timestamp, layout, Kind::timestamp, cells);
    append(out.coded, layout, Kind::coded, cells);
    append(out.embedding, layout, Kind::embedding, cells);
    append(out.boolean, layout, Kind::boolean, cells);
  }
  static void copy_line(GatheredTable& out, const Layout& layout, std::size_t line, const char* cells) {
    copy(out.numerical.data() + line * layout.of(Kind::numerical), layout, Kind::numerical, cells);
    copy(out.timestamp.data() + line * layout.of(Kind::timestamp), layout, Kind::timestamp, cells);
    copy(out.coded.data() + line * layout.of(Kind::coded), layout, Kind::coded, cells);
    copy(out.embedding.data() + line * layout.of(Kind::embedding), layout, Kind::embedding, cells);
    copy(out.boolean.data() + line * layout.of(Kind::boolean), layout, Kind::boolean, cells);
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
  // Overwrites a null of a line; a null payload leaves it.
  void put(GatheredTable& out, const Layout& layout, u32 index, const char* payload, std::size_t line) const {
    if (payload == nullptr) return;
    const ColumnHeader& column = reader_.columns(*layout.table)[index];
    const u32 count = layout.of(column.kind);
    const auto cell = [&](auto& values) -> auto& {
      return values[(line == LAST ? values.size() - count : line * count) + column.kind_index];
    };
    switch (column.kind) {
      case Kind::numerical: cell(out.numerical) = load<double>(payload); break;
      case Kind::timestamp: cell(out.timestamp) = load<i64>(payload); break;
      case Kind::coded: cell(out.coded) = load<i32>(payload); break;
      case Kind::boolean: cell(out.boolean) = load<u8>(payload); break;
      case Kind::embedding: std::memcpy(&cell(out.embedding), payload, column.dim * sizeof(float)); break;
    }
  }

  const Reader& reader_;
  std::vector<Layout> layouts_;
  std::vector<Noted> noted_;
  bool any_columns_ = false;
  bool disk_was_read_ = true;  // for what was noted last
};

}  // namespace nowgraph
