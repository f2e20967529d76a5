"""What several methods share: numbers and layers that users give, the page, pictures' palette and drawings."""
