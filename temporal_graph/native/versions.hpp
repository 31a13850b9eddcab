// A whole table as it was at every moment: one state a row and distinct visible time, for SQL over history.
//
//   rows -> their versions in order of visible time, each folded in at its rank -> states with their validity
#pragma once

#include "reader.hpp"
#include "sampler_sample.hpp"

namespace nowgraph {

// Rows of equal number in every column; parents and cells are row-major.
struct RowStates {
  Column<i64> row, event_time_us, valid_from_us, valid_to_us;
  Column<u8> deleted;
  Column<i64> parents;  // -1 for none
  GatheredTable cells;  // its nodes are not used
};

// How rows arrived: their first versions in order. Parents are row-major, -1 for none; rows known by a foreign key alone
// (and those that retention dropped) are bare, without times and parents.
struct RowArrivals {
  Column<i64> row, event_time_us, visible_time_us, parents;
  Column<u8> bare;

  void add(const Reader& reader, const Snapshot& snapshot, const TableHeader& table, u32 row);

 private:
  std::vector<Reader::VersionKey> versions_;
};

// The states that the snapshot may see, by row and time. The reader must be pinned.
RowStates row_states(const Reader& reader, const Snapshot& snapshot, u32 table_index);

}  // namespace nowgraph
