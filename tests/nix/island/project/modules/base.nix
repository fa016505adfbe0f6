{ config }:
{
  name = "base";
  title = "the ${config.name} says: ${config.greeting}";
}
