// Memory of another version of this package: refused by its layout's number, never misread.
#include <unistd.h>

#include <cstddef>
#include <filesystem>
#include <fstream>
#include <string>

#include "image.hpp"
#include "testing.hpp"
#include "writer.hpp"

using namespace nowgraph;

namespace {

constexpr u64 ARENA_BYTES = u64{64} << 20;
const std::string EXPECTED = "has layout " + std::to_string(LAYOUT_VERSION + 1) + ", expected " + std::to_string(LAYOUT_VERSION);

GraphSpec people() {
  GraphSpec spec;
  TableSpec table;
  table.name = "people";
  table.key_parts_are_text = {false};
  spec.tables = {table};
  return spec;
}

std::string folder() {
  const auto path = std::filesystem::temp_directory_path() / ("nowgraph-layout-" + std::to_string(::getpid()));
  std::filesystem::create_directories(path);
  return path.string();
}

// What the refusal says; empty where there is none.
template <class Refused, class Act>
std::string refusal(Act act) {
  try {
    act();
  } catch (const Refused& refused) {
    return refused.what();
  }
  return "";
}

}  // namespace

TEST("an image of another layout is refused by its number, though not a byte of it is damaged") {
  const std::string path = folder() + "/image";
  Arena arena(ARENA_BYTES), other(ARENA_BYTES);
  format_graph(arena, people(), "fingerprint", 1);
  Writer writer(arena);
  {
    ImageWriter image(arena, path);
    image.copy(u64{1} << 30);
    image.settle(writer.save());
    image.finish();
  }
  verify_image(path);

  ImageFooter footer;
  constexpr auto FROM_END = -static_cast<std::streamoff>(sizeof footer);
  std::fstream image(path, std::ios::in | std::ios::out | std::ios::binary);
  image.seekg(FROM_END, std::ios::end).read(reinterpret_cast<char*>(&footer), sizeof footer);
  footer.layout_version += 1;
  footer.footer_hash = hash_page(reinterpret_cast<const char*>(&footer), offsetof(ImageFooter, footer_hash));
  image.seekp(FROM_END, std::ios::end).write(reinterpret_cast<const char*>(&footer), sizeof footer).flush();
  CHECK(refusal<ImageRefused>([&] { verify_image(path); }).find(EXPECTED) != std::string::npos);
  CHECK(refusal<ImageRefused>([&] { restore_image(other, path, "fingerprint", 2); }).find(EXPECTED) != std::string::npos);
  std::filesystem::remove_all(folder());
}

TEST("an arena of another layout is refused to readers by its number") {
  const std::string path = folder() + "/arena";
  Arena arena(path, ARENA_BYTES, true);
  format_graph(arena, people(), "fingerprint", 1);
  CHECK_EQUAL(refusal<ArenaRefused>([&] { Arena mapped(path, 0, false); }), std::string());
  arena.header().layout_version += 1;
  CHECK(refusal<ArenaRefused>([&] { Arena mapped(path, 0, false); }).find(EXPECTED) != std::string::npos);
  std::filesystem::remove_all(folder());
}
