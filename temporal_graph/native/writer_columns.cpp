// The writer's part that fills the columns' file: a slot a row, and the cells of versions behind one another.
#include <algorithm>

#include "writer.hpp"

namespace nowgraph {

// The next slot, of nulls.
u32 Writer::take_slot(u32 table_index, TableHeader& table) {
  const u32 slot = table.slot_count;
  if ((slot >> CHUNK_ROWS_LOG2) == table.slots.chunk_count) grow_chunks(table.slots, true);
  const std::vector<char>& blank = states_[table_index].blank_slot;
  char* cells = arena_.columns_at(table.slots.place(arena_, slot));
  std::memcpy(cells, blank.data(), blank.size());
  ++table.slot_count;
  return slot;
}

// What the columns' offsets count from in a new row: its record, or on disk a slot of its own if it has any cell.
char* Writer::new_cells(u32 table_index, TableHeader& table, const RowChange& change, char* record) {
  if (!table.columns_on_disk) return record;
  const auto fills = [&](const CellValue& cell) { return !cell.is_null && cell.index < table.column_count; };
  if (std::none_of(change.cells.begin(), change.cells.end(), fills)) return record;
  const u32 slot = take_slot(table_index, table);
  store<u32>(record + table.cells_offset, slot);
  return arena_.columns_at(table.slots.place(arena_, slot));
}

void Writer::cells_written(const char* cells, u64 bytes) {
  arena_.columns()->written(static_cast<u64>(cells - arena_.columns_at(0)), bytes);
}

u64 Writer::take_version_cells(u32 bytes) {
  if (bytes > VERSION_CELLS_SLAB_BYTES / 4) return arena_.allocate_columns(bytes);
  if (version_cells_next_ + bytes > version_cells_end_) {
    version_cells_next_ = arena_.allocate_columns(VERSION_CELLS_SLAB_BYTES);
    version_cells_end_ = version_cells_next_ + VERSION_CELLS_SLAB_BYTES;
  }
  const u64 offset = version_cells_next_;
  version_cells_next_ += bytes;
  return offset;
}

// The cells of the version that was written last.
void Writer::give_back_cells(const TableHeader& table, u32 unit) {
  if (!table.columns_on_disk) return;
  const DiskCells& cells = Reader::disk_cells(*reader_.version(unit));
  if (cells.count == 0) return;
  char* at = arena_.columns_at(cells.offset);
  std::memset(at, 0, cells.bytes);
  cells_written(at, cells.bytes);
  if (cells.offset + cells.bytes == version_cells_next_) version_cells_next_ = cells.offset;
}

}  // namespace nowgraph
