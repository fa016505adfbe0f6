{ config }:
{
  sentence = "${config.title}, ${config.name}";
}
