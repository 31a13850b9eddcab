// A schema as plain data, and how a fresh arena is laid out from it.
#pragma once

#include <string>
#include <vector>

#include "layout.hpp"

namespace nowgraph {

struct ColumnSpec {
  std::string name;
  Kind kind = Kind::numerical;
  bool joined = false;
  bool is_outcome = false;
  u32 dim = 0;
};

struct TableSpec {
  std::string name;
  std::vector<bool> key_parts_are_text;  // empty: no primary key
  bool has_time = false;
  KnownTimeKind known_time = KnownTimeKind::event_time;
  i64 lateness_us = INT64_MAX;
  i64 future_us = INT64_MAX;
  i64 retention_age_us = INT64_MAX;
  u32 retention_degree = NONE;
  bool columns_on_disk = false;
  std::vector<ColumnSpec> columns;
};

struct LinkSpec {
  std::string name;
  u32 child = 0;
  u32 parent = 0;
  bool erases = false;
};

struct GraphSpec {
  std::vector<TableSpec> tables;
  std::vector<LinkSpec> links;
};

// Writes headers, empty maps and directories; the arena is then a graph without rows. It must have a file for columns
// where a table wants one.
void format_graph(Arena& arena, const GraphSpec& spec, std::string_view fingerprint, i64 generation);

// Whether a graph has the spec's tables, columns and links, in its order, and the cells where the spec wants them.
bool fits_spec(const Arena& arena, const GraphSpec& spec);

// Takes what changes no row, bounds and retention, from a spec that fits; ImageRefused for one that does not.
void take_spec(Arena& arena, const GraphSpec& spec);

}  // namespace nowgraph
